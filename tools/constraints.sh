#!/usr/bin/env bash
# Print requirements.lock as constraints of pip: the same versions without their hashes, which pip would
# otherwise want of this tree too.
set -euo pipefail
sed -En 's/^([A-Za-z0-9._-]+==[^\\]*[^\\ ]) *\\?$/\1/p' "$(dirname "$0")/../requirements.lock"
