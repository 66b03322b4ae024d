#!/usr/bin/env bash
# Installs the locked set of the Tesla V100 and runs it on a machine without one, up to the first call
# of CUDA: what `doctor`, `config show`, `eval` and `bench` choose there, and how they end.
#
#   bash scripts/check_v100_set.sh [FOLDER]    9 GB, kept in FOLDER when one is named and used again
#
# Needs Linux on x86-64, a Python of requirements/v100.txt, gcc and nm. The driver is a stand-in:
# NVML reports one V100 (scripts/stand_in_driver.c), and every function of libcuda.so.1 says that there
# is no device. So kernels and speed are not checked; everything before them is, for real.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

root=$PWD
folder=${1:-}
if [ -z "$folder" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/v100_set.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit
for tool in gcc nm; do
    command -v $tool >/dev/null || { echo "check: $tool is missing" >&2; exit 2; }
done

python=
for version in $(sed -n 's/^# Python: //p' requirements/v100.txt); do
    for path in "$(command -v "python$version")" ~/.pyenv/versions/"$version".*/bin/python; do
        "$path" -c 'import ensurepip' 2>/dev/null && python=$path
    done
done
[ -n "$python" ] || { echo "check: no Python of requirements/v100.txt here" >&2; exit 2; }
bin=$folder/venv/bin
if ! [ -e "$folder/installed" ]; then
    "$python" -m venv "$folder/venv" &&
        "$bin/pip" install -q --no-deps -r requirements/v100.txt &&
        touch "$folder/installed" || exit
fi

# The driver's functions that the libraries of this set want to find.
driver=$folder/driver
mkdir -p "$driver"
gcc -shared -fPIC -w -o "$driver/libnvidia-ml.so.1" scripts/stand_in_driver.c || exit
find "$folder/venv" -name '*.so*' -type f -print0 |
    xargs -0 -n 50 nm -D --undefined-only 2>/dev/null |
    sed -nE 's/^ +U (cu[A-Z][A-Za-z0-9_]*)(@.*)?$/\1/p' | grep -v '^cuFile' | sort -u |
    sed 's/.*/int &(void) { return 100; } \/* CUDA_ERROR_NO_DEVICE *\//' >"$driver/cuda.c"
gcc -shared -fPIC -w -o "$driver/libcuda.so.1" "$driver/cuda.c" || exit
ln -sf libcuda.so.1 "$driver/libcuda.so"

export LD_LIBRARY_PATH=$driver PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1
unset CUDA_VISIBLE_DEVICES
work=$folder/work
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit
slm() { "$bin/python" -m slm_vllm "$@"; }
failures=0
expect() { # what, pattern, file
    if grep -qE -- "$2" "$3"; then
        printf 'check: ok      %s\n' "$1"
    else
        failures=$((failures + 1))
        printf 'check: FAILED  %s: %s does not say /%s/\n' "$1" "$3" "$2"
    fi
}
refuse() { # what, pattern, file
    if grep -qE -- "$2" "$3"; then
        failures=$((failures + 1))
        printf 'check: FAILED  %s: %s says /%s/\n' "$1" "$3" "$2"
    else
        printf 'check: ok      %s\n' "$1"
    fi
}

slm doctor >doctor.txt 2>&1
expect "doctor sees the GPU" 'Tesla V100' doctor.txt
expect "doctor takes the profile v100" 'v100' doctor.txt
refuse "doctor finds nothing wrong with vLLM and torch" 'fail.*(vllm|torch|GPU)' doctor.txt

slm config show >config.txt 2>&1
expect "the profile is v100" 'name: v100' config.txt
expect "float16" 'dtype: float16' config.txt

slm eval --model demo --dataset demo --samples 4 --name run --no-clearml >eval.txt 2>&1
code=$?
[ $code -eq 4 ] || { failures=$((failures + 1)); echo "check: FAILED  eval ends with $code, not 4"; }
refuse "eval ends without a traceback" '^Traceback' eval.txt
expect "vLLM 0.9.2 is started in float16" "starting vLLM 0\.9\.2 .*'dtype': 'float16'" outputs/run/engine.log
expect "a V0 engine" 'Initializing a V0 LLM engine' outputs/run/engine.log
expect "attention by XFormers" 'XFormers backend' outputs/run/engine.log
expect "it ends at the driver" 'CUDA|NVIDIA|driver' eval.txt

slm bench throughput --models demo --questions 4 --input-len 16 --output-len 4 >bench.txt 2>&1
refuse "bench ends without a traceback" '^Traceback' bench.txt
expect "bench says why" 'CUDA|NVIDIA|driver' bench.txt

[ $failures -eq 0 ] && echo "check: all of it as it should be, up to the driver" && exit
echo "check: $failures of it are not; outputs in $work" >&2
trap - EXIT
exit 1
