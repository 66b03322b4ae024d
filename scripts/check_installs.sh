#!/usr/bin/env bash
# Installs this project in every way its users do and prints a table of what went through.
#
#   bash scripts/check_installs.sh [pip] [locks] [commands]     all three parts if none is named
#
#   SLM_VLLM_PYTHONS="python3.10 /opt/py/bin/python3.13"   instead of those found on PATH and in pyenv
#
# Needs Linux, a package index and 12 GB under TMPDIR; takes half an hour on two idle cores.
# Everything happens in a temporary folder: the tools (uv, poetry, old pips) are installed there.
# Extras of gigabytes are resolved by uv and not installed, one of them (cpu) also by `uv sync`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

pips=(23.0.1 24.0 24.3.1 25.3 newest)
light=(clearml demo openai ray report s3 zstd)
small=s3,zstd
heavy=(cpu cuda volta retrieval)
root=$PWD
parts=${*:-pip locks commands}
work=$(mktemp -d "${TMPDIR:-/tmp}/check_installs.XXXXXX")
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 POETRY_VIRTUALENVS_PATH=$work/poetry-venvs
unset PYTHONPATH VIRTUAL_ENV
failures=0

# Runs a command, bounded and with its output kept; says what failed and why.
try() {
    local what=$1 started=$SECONDS
    shift
    if timeout 1200 "$@" >"$work/log" 2>&1 </dev/null; then
        printf 'check: ok      %s (%s s)\n' "$what" $((SECONDS - started))
        return 0
    fi
    failures=$((failures + 1))
    printf 'check: FAILED  %s: %s\n' "$what" "$*"
    tail -n 8 "$work/log" | cut -c 1-300 | sed 's/^/    | /'
    return 1
}
row() { printf '| %s |\n' "$*" >>"$work/table"; }
mark() { "$@" && result=yes || result='**no**'; }

find_pythons() {
    local version path supported
    if [ -n "${SLM_VLLM_PYTHONS:-}" ]; then
        echo "$SLM_VLLM_PYTHONS" | tr ' ' '\n'
        return
    fi
    read -ra supported < <(sed -n 's/^# Python: //p' requirements/dev.txt)
    for version in "${supported[@]}"; do
        for path in "$(command -v "python$version")" ~/.pyenv/versions/"$version".*/bin/python; do
            if "$path" -c 'import ensurepip' 2>/dev/null; then
                echo "$path"
                break
            fi
        done
    done
}
minor() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

mapfile -t pythons < <(find_pythons)
printf 'check: %s\n' "${pythons[@]}"
[ ${#pythons[@]} -gt 0 ] || exit 1

# Tools, distributions, and the checkout that the sdist holds, in which everything else happens.
main=${pythons[0]}
for path in "${pythons[@]}"; do [ "$(minor "$path")" = 3.11 ] && main=$path; done
try "tools" bash -c "'$main' -m venv '$work/tools' &&
    '$work/tools/bin/pip' install build hatchling poetry uv" || exit
export PATH=$work/tools/bin:$PATH UV_CACHE_DIR=${UV_CACHE_DIR:-$work/uv-cache}
try "wheel and sdist" python -m build --outdir "$work/dist" "$root" || exit
wheel=$(echo "$work"/dist/*.whl) sdist=$(echo "$work"/dist/*.tar.gz)
mkdir "$work/checkout" && tar -xzf "$sdist" -C "$work/checkout" --strip-components 1
cd "$work/checkout" || exit

# pip in each version under each Python: bare from wheel and sdist, extras resolved.
pip_cell() {
    local python=$1 version=$2 venv=$work/venv extra told lacking=()
    rm -rf "$venv"
    "$python" -m venv "$venv" >"$work/log" 2>&1 || { result='**no venv**'; return; }
    if [ "$version" = newest ]; then
        "$venv/bin/python" -m pip install --quiet --upgrade pip >>"$work/log" 2>&1
    else
        "$venv/bin/python" -m pip install --quiet "pip==$version" >>"$work/log" 2>&1
    fi
    if ! "$venv/bin/python" -m pip install --dry-run --no-index pip >>"$work/log" 2>&1; then
        result="this pip does not run"
        return
    fi
    told="pip $version, Python $(minor "$python")"
    pip=("$venv/bin/python" -m pip install --quiet)
    try "$told: wheel" "${pip[@]}" "$wheel" || lacking+=(wheel)
    try "$told: --version" "$venv/bin/slm-vllm" --version || lacking+=(run)
    try "$told: sdist" "${pip[@]}" --force-reinstall --no-deps "$sdist" || lacking+=(sdist)
    try "$told: wheel[$small]" "${pip[@]}" --dry-run "${wheel}[$small]" || lacking+=("wheel[$small]")
    try "$told: sdist[$small]" "${pip[@]}" --dry-run "${sdist}[$small]" || lacking+=("sdist[$small]")
    if [ "$version" = newest ]; then
        for extra in "${light[@]}"; do
            try "$told: [$extra]" "${pip[@]}" --dry-run "${wheel}[$extra]" || lacking+=("$extra")
        done
        commands "$told" "$venv/bin/slm-vllm" || lacking+=("commands without extras")
    fi
    result=yes
    [ ${#lacking[@]} -eq 0 ] || result="**no: ${lacking[*]}**"
}

# What works in a bare install, and the commands that name the extra they need.
commands() {
    local told=$1 run=$2 before=$failures words extra
    printf '{"question": "Which?", "answers": ["this"]}\n' >"$work/questions.jsonl"
    mkdir -p "$work/bare" && cd "$work/bare" || return
    for words in "--help" "config list" "config show" "data check $work/questions.jsonl" "data list" \
        "index search water --dataset demo"; do
        # shellcheck disable=SC2086  # the words of a command
        try "$told: slm-vllm $words" "$run" $words
    done
    while read -r extra words; do
        # shellcheck disable=SC2086
        try "$told: slm-vllm $words names $extra" bash -c 'names_extra "$@"' _ "$extra" "$run" $words
    done <<'COMMANDS'
s3 s3 ls --bucket b
s3 s3 test --bucket b
s3 data check s3://b/questions.jsonl
s3 eval --model demo --dataset s3://b/questions.jsonl --mode no_context
retrieval index build --dataset demo --retriever dense
retrieval index eval --dataset demo --retriever rank_bm25
retrieval index search water --dataset demo retriever.options.stemmer=english
(cpu|cuda|volta) eval --model a/b --dataset demo --mode no_context --samples 2
(cpu|cuda|volta) bench throughput --models a/b --questions 2 --repeats 1
openai eval --model a/b --engine openai --base-url http://localhost:9 --dataset demo --samples 2
COMMANDS
    cd "$work/checkout" || return
    [ "$failures" -eq "$before" ]
}
names_extra() {
    local extra=$1 said code=0
    shift
    said=$("$@" 2>&1) || code=$?
    printf '%s\n' "$said"
    [ "$code" -ne 0 ] && grep -Eq "Install the extra '$extra': pip install" <<<"$said" &&
        ! grep -q Traceback <<<"$said"
}
export -f names_extra

header() { row "$1 | $(for path in "${pythons[@]}"; do printf '%s | ' "$(minor "$path")"; done)"; }
rule() { row "--- | $(for _ in "${pythons[@]}"; do printf -- '--- | '; done)"; }

check_pip() {
    local version line python
    header "pip"
    rule
    for version in "${pips[@]}"; do
        line=
        for python in "${pythons[@]}"; do
            pip_cell "$python" "$version"
            line+="$result | "
        done
        [ "$version" = newest ] && version="$("$work/venv/bin/pip" --version | cut -d ' ' -f 2) (newest)"
        row "$version | $line"
    done
}

check_locks() {
    local extra lock version line python
    header "resolved by uv" && rule
    for extra in "${heavy[@]}"; do
        line=
        for python in "${pythons[@]}"; do
            version=$(minor "$python")
            if [ "$extra" = volta ] && ! grep -q "^# Python:.* $version" requirements/v100.txt; then
                result="vllm 0.9.2 refuses it"
            else
                mark try "[$extra] for Python $version" uv pip compile --quiet pyproject.toml \
                    --extra "$extra" --python-version "$version" --output-file "$work/compiled.txt"
            fi
            line+="$result | "
        done
        row "extra \`$extra\` | $line"
    done
    for lock in cpu cuda v100; do
        line=
        for python in "${pythons[@]}"; do
            version=$(minor "$python")
            if ! grep -q "^# Python:.* $version" "requirements/$lock.txt"; then
                result="vllm 0.9.2 refuses it"
            else
                mark try "$lock.txt and dev.txt for Python $version" uv pip install --dry-run --no-deps \
                    --python "$python" --target "$work/nothing" -r "requirements/$lock.txt" \
                    -r requirements/dev.txt
            fi
            line+="$result | "
        done
        row "\`$lock.txt\` with \`dev.txt\` | $line"
    done
}

one() { # TEXT COMMAND...
    local text=$1
    shift
    mark try "$text" "$@"
    row "\`$text\` | $result"
}

check_commands() {
    row "command | Python $(minor "$main")" && row "--- | ---"
    "$main" -m venv "$work/plain" && "$work/plain/bin/pip" install --quiet --upgrade pip
    one "pip install -r requirements.txt" "$work/plain/bin/pip" install --quiet -r requirements.txt
    one "slm-vllm config list" "$work/plain/bin/slm-vllm" config list
    one "uv lock" uv lock --python "$main"
    one "uv sync --extra cpu" uv sync --extra cpu --python "$main"
    one "uv run --extra cpu slm-vllm --version" uv run --extra cpu slm-vllm --version
    one "uv run slm-vllm --version" uv run slm-vllm --version
    rm -rf .venv
    one "poetry check" poetry check
    # Poetry asks PyPI's JSON interface; an index that has only the simple one must be named.
    if ! python -c 'from urllib.request import urlopen; urlopen("https://pypi.org/pypi/click/8.1.8/json")' \
        2>/dev/null; then
        echo "check: no JSON interface here, poetry gets the simple one as its source"
        poetry source add --quiet --priority=primary simple https://pypi.org/simple/
    fi
    one "poetry install" poetry install --no-interaction
    one "poetry install --extras s3" poetry install --no-interaction --extras s3
    one "poetry run slm-vllm --version" poetry run slm-vllm --version
}

for part in $parts; do
    "check_$part"
    row ""
done
printf '\nOn %s, with %s and %s:\n\n' "$(date +%F)" "$(uv --version | cut -d ' ' -f 1,2)" \
    "$(poetry --version | tr -d '()')"
sed -e 's/ *| |$/ |/' -e 's/^|  |$//' "$work/table"
printf '\ncheck: %s failed\n' "$failures"
[ "$failures" -eq 0 ]
