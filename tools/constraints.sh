#!/usr/bin/env bash
# Print constraints for pip. They have no hashes: with hashes pip requires one of ds01d itself too.
#
#   tools/constraints.sh                   the versions of requirements.lock
#   tools/constraints.sh --lowest PYTHON   the lowest versions that pyproject.toml allows with this
#                                          interpreter, and the locked versions of their dependencies
set -euo pipefail
cd "$(dirname "$0")/.."

locked() { sed -En 's/^([A-Za-z0-9._-]+==[^\\]*[^\\ ]) *\\?$/\1/p' requirements.lock; }

if [[ ${1:-} == --lowest ]]; then
    lowest=$(.venv/bin/uv pip compile --quiet --no-deps --resolution lowest-direct --extra dev --no-header \
        --no-annotate --no-python-downloads --python "$2" pyproject.toml)
    printf '%s\n' "$lowest"
    locked | grep -vE "^($(sed 's/==.*//' <<<"$lowest" | paste -sd '|'))=="
else
    locked
fi
