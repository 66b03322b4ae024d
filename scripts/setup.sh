#!/usr/bin/env bash
# Makes .venv with the locked packages that fit this machine, and the project itself, editable.
# A second call finds the stamp and returns at once; a changed lock or a broken-off call installs.
#
#   SLM_VLLM_HARDWARE=cpu|cuda|v100   instead of what nvidia-smi says
#   SLM_VLLM_PYTHON=/path/to/python   instead of those on PATH; the locks name the versions they
#                                     are for, python3.11 is taken first
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
version_of() { "$1" -c 'import sys; print(sys.version)' 2>/dev/null; }
another_python_named() {
    [ -n "${SLM_VLLM_PYTHON:-}" ] &&
        [ "$(version_of "$SLM_VLLM_PYTHON")" != "$(version_of "$venv/bin/python")" ]
}
is_current() {
    [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] &&
        ! another_python_named
}
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

# Which Pythons the lock is resolved for, as "3.10 3.11 ...".
supported=$(sed -n 's/^# Python: //p' "$lock")

# Says why an interpreter cannot be used; silent if it can.
refusal() {
    local path found
    path=$(command -v "$1") || { echo "not found"; return; }
    found=$("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1) ||
        { echo "does not run: $(head -n 1 <<<"$found")"; return; }
    case " $supported " in
        *" $found "*) ;;
        *) echo "is Python $found"; return ;;
    esac
    "$path" -c 'import ensurepip, venv' 2>/dev/null ||
        echo "has no venv module (Debian and Ubuntu: apt install python$found-venv)"
}

# Sets `python` to the first that can be used and `refused` to a line for each one before it.
find_python() {
    local candidate why candidates
    read -ra candidates <<<"python3.11 ${supported//3./python3.} python3 python"
    [ -z "${SLM_VLLM_PYTHON:-}" ] || candidates=("$SLM_VLLM_PYTHON")
    python='' refused=()
    for candidate in "${candidates[@]}"; do
        case " ${refused[*]+"${refused[*]}"} " in *" $candidate: "*) continue ;; esac
        why=$(refusal "$candidate")
        if [ -z "$why" ]; then
            python=$(command -v "$candidate")
            return
        fi
        refused+=("  $candidate: $why")
    done
    return 1
}

fail_for_python() {
    fail "$lock is for Python $supported, with the venv module. Looked at:" "${refused[@]}" \
        "Another interpreter can be named with SLM_VLLM_PYTHON=/path/to/python."
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
if [ -x "$venv/bin/python" ] && [ -f "$kind_file" ] && another_python_named; then
    trap - EXIT
    find_python || fail_for_python
    trap on_exit EXIT
    say "$venv was made with another Python than $SLM_VLLM_PYTHON: making it anew"
    rm -rf "$venv"
fi
rm -f "$stamp"
if ! "$venv/bin/python" -m pip --version >>"$log" 2>&1; then
    if [ -d "$venv" ] && [ ! -f "$kind_file" ]; then
        trap - EXIT
        fail "there is a $venv here that this script did not make, and it has no working pip." \
            "Remove or rename it and call again."
    fi
    if ! find_python; then
        trap - EXIT
        fail_for_python
    fi
    [ ${#refused[@]} -eq 0 ] || printf 'setup: %s\n' "passed over:" "${refused[@]}"
    say "making $venv with $("$python" --version) ($python) for hardware '$hardware'"
    rm -rf "$venv"
    mkdir "$venv"
    printf '%s\n' "$hardware" >"$kind_file"
    "$python" -m venv "$venv" >>"$log" 2>&1
fi
printf '%s\n' "$hardware" >"$kind_file"

pip_run() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input \
        install --progress-bar off "$@" >>"$log" 2>&1
}
pip_install() { pip_run --no-deps "$@"; }

# The CPU engine is built for torch's CPU build. It runs beside the one for CUDA too, which is what
# an index without PyTorch's own builds has, and which needs its dependencies to be imported.
install_torch_for_cpu() {
    local torch
    torch=$(grep -E '^torch==' "$lock")
    say "installing $torch+cpu"
    pip_install "$torch+cpu" && return
    say "pip's configured places do not have it, trying $torch_cpu_index"
    pip_install --extra-index-url "$torch_cpu_index" "$torch+cpu" && return
    say "nor is it there; installing $torch for CUDA, which runs on a CPU too but takes 6 GB"
    pip_run "$torch"
}

if [ "$hardware" = cpu ] && [ "$(uname -m)" = x86_64 ]; then
    install_torch_for_cpu
fi
say "installing the packages of $lock and the development tools (minutes)"
pip_install -r "$lock" -r requirements/dev.txt
say "installing the project itself, editable"
pip_install --no-build-isolation --editable .

printf '%s\n' "$wanted" >"$stamp.new"
mv "$stamp.new" "$stamp"
say "ready after $((SECONDS - started)) s (hardware '$hardware', log in $log)"
