#!/usr/bin/env bash
# Starts `slm-vllm eval` in the background, so that it survives the end of this shell. All words go
# to `slm-vllm eval`, e.g.: bash scripts/nohup_eval.sh --model demo --dataset demo --mode oracle
#
# SLM_VLLM: the command, where it is not in .venv/bin or on the path.
# SLM_VLLM_CONSOLE: where progress and messages go (default: slm-vllm-<date>-<time>.out).
set -euo pipefail
if [ $# -eq 0 ] || [ "$1" = "-h" ] || [ "$1" = "--help" ]; then
    sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${SLM_VLLM:-}" ]; then
    SLM_VLLM=slm-vllm
    if [ -x "$here/.venv/bin/slm-vllm" ]; then SLM_VLLM=$here/.venv/bin/slm-vllm; fi
fi
console=${SLM_VLLM_CONSOLE:-slm-vllm-$(date +%Y%m%d-%H%M%S).out}

# nohup: SIGHUP is ignored. setsid: no signal for this shell's process group arrives either.
setsid nohup "$SLM_VLLM" eval "$@" >"$console" 2>&1 </dev/null &
pid=$!

# A wrong option or configuration ends it within seconds: that is said here, not found at dawn.
for _ in $(seq 30); do
    if ! kill -0 "$pid" 2>/dev/null; then
        code=0
        wait "$pid" || code=$?
        cat "$console"
        printf 'It has ended with exit code %s.\n' "$code"
        exit "$code"
    fi
    sleep 0.1
done
cat <<END
Started: process $pid, console in $console

  tail -f $console                   progress
  $SLM_VLLM runs list                which runs there are, and how far
  $SLM_VLLM runs tail RUN --follow   log of the run and of vLLM
  $SLM_VLLM runs stop RUN            stop (or: kill $pid); all answers so far are kept

(add --output-dir DIR to the runs commands if you gave one). The same command goes on from there.
END
