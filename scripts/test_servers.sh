#!/usr/bin/env bash
# Installs the servers of others that some tests run against, without root, each in a virtual
# environment of its own below .cache/servers. What is there already stays as it is.
#   swift-2.30, swift-2.38   OpenStack Swift: S3 without and with conditional writes
#   llama.cpp                its own HTTP server, from the package xllamacpp
# scripts/test.sh calls it. Tests whose server cannot be had on this machine are skipped.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=0
install() { # NAME REQUIREMENT
    local folder=.cache/servers/$1
    [ "$(cat "$folder/installed" 2>/dev/null)" = "$2" ] && return
    printf 'servers: installing %s\n' "$2"
    rm -rf "$folder"
    if .venv/bin/python -m venv "$folder" &&
        "$folder/bin/python" -m pip --disable-pip-version-check --no-input \
            install -qq --only-binary xllamacpp "$2"; then
        printf '%s\n' "$2" >"$folder/installed"
    else
        printf 'servers: no %s here; its tests are skipped\n' "$1"
        failed=1
    fi
}

mkdir -p .cache/servers
# The older Swift needs a Python before 3.12, and a C compiler for one of its packages.
if .venv/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then
    install swift-2.30 swift==2.30.1
fi
install swift-2.38 swift==2.38.3
install llama.cpp xllamacpp==2026.10.11549
exit "$failed"
