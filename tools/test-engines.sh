#!/usr/bin/env bash
# Run the tests marked `docker` on several Docker engines: those in ENGINES, or all. Not those marked
# `engine_neutral`: what they show is refused or decided before an engine does anything.
#
#   ENGINES='trixie forky+containerd' tools/test-engines.sh [argument for pytest]...
#   make test-engines ENGINES=forky ARGS='-x -k creation'
#
# An engine is docker.io of that Debian release: the one of this host, or one that is downloaded once (see
# simulation/engines.py). An engine that is not available is a failure.
set -uo pipefail
cd "$(dirname "$0")/.."

if ((EUID != 0)); then
    echo 'test-engines: a private Docker engine needs root' >&2
    exit 1
fi
read -ra engines <<<"${ENGINES:-bookworm trixie forky forky+containerd}"
.venv/bin/python -m simulation.engines "${engines[@]}" || exit 1

failed=0
report=()
for engine in "${engines[@]}"; do
    began=$SECONDS result=passed
    DS01D_ENGINE=$engine .venv/bin/python -m pytest -q -m 'docker and not engine_neutral' \
        -n auto --dist loadscope --max-worker-restart 2 "$@" || { result=FAILED failed=1; }
    report+=("$(printf '%-6s %4d s  %s' "$result" $((SECONDS - began)) "$engine")")
done
printf '%s\n' '' "${report[@]}"
exit "$failed"
