#!/usr/bin/env bash
# From a fresh clone to a result: sets .venv up, then evaluates a real small model on the shipped
# demo dataset: closed book, with the retriever, with the gold context. Further words go to
# `slm-vllm eval`, e.g.: bash scripts/demo.sh --samples 20
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh

# A GPU answers all 491 questions in the time a CPU needs for a few; --samples N changes it.
samples=()
command -v nvidia-smi >/dev/null || samples=(--samples 60)

started=$SECONDS
code=0
.venv/bin/slm-vllm eval --model demo --dataset demo --mode no_context,retriever,oracle \
    "${samples[@]}" "$@" || code=$?
if [ "$code" -ne 0 ]; then
    printf '\ndemo: slm-vllm eval ended with exit code %s; what it said is above.\n' "$code" >&2
    exit "$code"
fi
cat <<EOF

demo: done in $((SECONDS - started)) s. Each mode has a run folder under outputs/ (or your
--output-dir): results.json holds the figures, predictions.jsonl every question with its answer,
experiment.log what the run did. Next: .venv/bin/slm-vllm --help
EOF
