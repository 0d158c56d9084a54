#!/usr/bin/env bash
# Run some of the tests, and the demonstration, as a user has it whose machine is unlike this one: a clone of what is
# committed, in a path with blanks, made with a umask of 077, 60 s after the boot, in another zone and in a locale that
# is not generated, with nothing else of this environment than what reaches programs and packages.
#
#   tools/test-elsewhere.sh [PYTEST-ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
uptime=60
tests=(
    tests/test_environment.py tests/cli
    tests/adapters/books/test_metadata_dir.py tests/adapters/books/test_timestamps.py tests/integration/test_nvml.py
    tests/machine/test_doctor.py
)

# A time namespace: its offsets count from the first one, also in another namespace (time_namespaces(7)).
just_booted=(unshare --time --fork)
for clock in boottime monotonic; do
    ours=$(awk -v clock="$clock" '$1 == clock { print $2 }' /proc/self/timens_offsets) || ours=
    if [[ -z $ours ]] || ! unshare --time true 2>/dev/null; then
        echo "test-elsewhere: no time namespace can be made here: that takes root, Linux 5.6 and util-linux 2.36" >&2
        exit 1
    fi
    up=$(python3 -c "import time; print(int(time.clock_gettime(time.CLOCK_${clock^^})))")
    just_booted+=("--$clock=$((ours - (up > uptime ? up - uptime : 0)))")
done

umask 077
folder=$(mktemp -d -t 'ds01d elsewhere XXXXXX')
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
git clone --quiet . "$folder/a clone"
cd "$folder/a clone"

environment=(TZ=Europe/Berlin LANG=de_DE.UTF-8 DS01D_TEST_ENVIRONMENT=foreign DS01D_HYPOTHESIS=few)
for name in PATH HOME TMPDIR CI http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY \
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE PIP_INDEX_URL PIP_CERT PIP_DEFAULT_TIMEOUT; do
    if [[ ${!name+set} ]]; then environment+=("$name=${!name}"); fi
done

elsewhere() { "${just_booted[@]}" env -i "${environment[@]}" "$@"; }

elsewhere make setup
said=$(elsewhere make setup)
if [[ $said ]]; then
    printf 'test-elsewhere: make setup does not know its own work again:\n%s\n' "$said" >&2
    exit 1
fi
elsewhere make --no-print-directory demo >/dev/null
elsewhere make --no-print-directory test ARGS="-q ${tests[*]} $*"
