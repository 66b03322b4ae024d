#!/usr/bin/env bash
# Makes .venv with the locked packages that fit this machine, and the project itself, editable.
# A second call finds the stamp and returns at once; a changed lock or a broken-off call installs.
#
#   SLM_VLLM_HARDWARE=cpu|cuda|v100   instead of what nvidia-smi says
#   SLM_VLLM_PYTHON=/path/to/python   instead of the python3.11, python3.12 or python3 on PATH
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.slm-vllm-stamp
kind_file=$venv/.slm-vllm-hardware
log=.cache/setup.log
torch_cpu_index=https://download.pytorch.org/whl/cpu

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

detect_hardware() {
    local caps lowest
    caps=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null) || caps=
    lowest=$(printf '%s\n' "$caps" | grep -E '^[0-9]+\.[0-9]+$' | sort -V | head -n 1) || lowest=
    case $lowest in
        "") echo cpu ;;
        7.0 | 7.2) echo v100 ;;
        [1-6].*) echo cpu ;; # no vLLM in these locks has kernels for them
        *) echo cuda ;;
    esac
}

# nvidia-smi can take seconds: what was found when .venv was made is trusted while it is plausible.
hardware=${SLM_VLLM_HARDWARE:-}
if [ -z "$hardware" ]; then
    if ! command -v nvidia-smi >/dev/null; then
        hardware=cpu
    elif [ -f "$stamp" ] && grep -qxE 'cuda|v100' "$kind_file" 2>/dev/null; then
        hardware=$(cat "$kind_file")
    else
        hardware=$(detect_hardware)
    fi
fi
case $hardware in
    cpu | cuda | v100) ;;
    *) fail "SLM_VLLM_HARDWARE is '$hardware'; it can be cpu, cuda or v100." ;;
esac

lock=requirements/$hardware.txt
# The folder counts too: a moved checkout leaves scripts in .venv that point to the old place.
wanted=$(
    {
        pwd -P
        cat "$lock" requirements/dev.txt pyproject.toml scripts/setup.sh
    } | sha256sum | cut -d ' ' -f 1
)
is_current() { [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; }
is_current && exit 0

mkdir -p .cache
if command -v flock >/dev/null; then
    exec 9>.cache/setup.lock
    if ! flock -n 9; then
        say "another setup is at work here, waiting for it"
        flock 9
    fi
    is_current && exit 0
fi

find_python() {
    local candidate
    for candidate in ${SLM_VLLM_PYTHON:-python3.11 python3.12 python3 python}; do
        if "$candidate" -c '
import sys, ensurepip, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

started=$SECONDS
: >"$log"
on_exit() {
    local code=$?
    [ "$code" -eq 0 ] && return
    {
        printf 'setup: failed; the end of %s:\n' "$log"
        tail -n 15 "$log" | cut -c 1-300 | sed 's/^/  | /'
        printf 'setup: what to do: check that pip reaches its package index (pip config list) and that\n'
        printf 'setup: the disk has 8 GB free, then call this again; it goes on where it stopped.\n'
        printf 'setup: If that does not help: rm -rf %s, and call again.\n' "$venv"
    } >&2
}
trap on_exit EXIT

if [ -d "$venv" ] && [ -f "$kind_file" ] && [ "$(cat "$kind_file")" != "$hardware" ]; then
    say "$venv was made for '$(cat "$kind_file")', this machine is '$hardware': making it anew"
    rm -rf "$venv"
fi
rm -f "$stamp"
if ! "$venv/bin/python" -m pip --version >>"$log" 2>&1; then
    if [ -d "$venv" ] && [ ! -f "$kind_file" ]; then
        trap - EXIT
        fail "there is a $venv here that this script did not make, and it has no working pip." \
            "Remove or rename it and call again."
    fi
    if ! python=$(find_python); then
        trap - EXIT
        fail "needs Python 3.11 or 3.12 with its venv module; found: $(python3 --version 2>&1 || true)" \
            "On Debian and Ubuntu: apt install python3 python3-venv. Another interpreter can be" \
            "named with SLM_VLLM_PYTHON=/path/to/python3.11."
    fi
    say "making $venv with $("$python" --version) for hardware '$hardware'"
    rm -rf "$venv"
    mkdir "$venv"
    printf '%s\n' "$hardware" >"$kind_file"
    "$python" -m venv "$venv" >>"$log" 2>&1
fi
printf '%s\n' "$hardware" >"$kind_file"

pip_install() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input \
        install --no-deps --progress-bar off "$@" >>"$log" 2>&1
}

if [ "$hardware" = cpu ] && [ "$(uname -m)" = x86_64 ]; then
    torch=$(grep -E '^torch==' "$lock")+cpu
    say "installing $torch"
    if ! pip_install "$torch"; then
        say "pip's configured places do not have it, trying $torch_cpu_index"
        pip_install --extra-index-url "$torch_cpu_index" "$torch"
    fi
fi
say "installing $(grep -cE '^[a-zA-Z]' "$lock") packages of $lock and the development tools (minutes)"
pip_install -r "$lock" -r requirements/dev.txt
if [ "$hardware" = cpu ] && [ "$(uname -m)" = x86_64 ]; then
    "$venv/bin/python" -c '
from importlib.metadata import version
found = version("torch")
assert found.endswith("+cpu"), f"torch {found} is not the CPU build"' >>"$log" 2>&1
fi
say "installing the project itself, editable"
pip_install --no-build-isolation --editable .

printf '%s\n' "$wanted" >"$stamp.new"
mv "$stamp.new" "$stamp"
say "ready after $((SECONDS - started)) s (hardware '$hardware', log in $log)"
