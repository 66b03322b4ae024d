#!/usr/bin/env bash
# Sets .venv up and servers for tests, then runs every check; fails if one of them does.
#   bash scripts/test.sh           everything, in two processes and in random order
#   bash scripts/test.sh --fast    what needs no model, browser or publisher: a minute or two
# Further words go to pytest, e.g. --randomly-seed=N to see an order again.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh || exit

chosen=()
if [ "${1:-}" = --fast ]; then
    shift
    chosen=(-m 'not e2e and not slow')
else
    bash scripts/test_servers.sh
fi

failed=()
check() {
    printf 'test: %s\n' "$*"
    .venv/bin/python -m "$@" || failed+=("$1 $2")
}
check ruff check .
check ruff format --check .
check mypy --no-error-summary

# Last, so that its summary is the last line; what failed before it is said just above.
[ ${#failed[@]} -eq 0 ] || printf 'test: FAILED before pytest: %s\n' "${failed[@]}"
# Tests of one group share what takes long to make, so they stay in one process.
words=(-n 2 --dist loadgroup "${chosen[@]}" "$@")
printf 'test: pytest %s\n' "${words[*]}"
code=0
.venv/bin/python -m pytest "${words[@]}" || code=$?
[ "$code" -eq 0 ] && [ ${#failed[@]} -gt 0 ] && code=1
exit "$code"
