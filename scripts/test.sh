#!/usr/bin/env bash
# Sets .venv up, then runs every check; fails if one of them does. Further words go to pytest,
# e.g.: bash scripts/test.sh -m 'not e2e'
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh || exit

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
printf 'test: pytest %s\n' "$*"
code=0
.venv/bin/python -m pytest "$@" || code=$?
[ "$code" -eq 0 ] && [ ${#failed[@]} -gt 0 ] && code=1
exit "$code"
