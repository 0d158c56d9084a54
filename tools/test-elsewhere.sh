#!/usr/bin/env bash
# Run some of the tests and the demonstration in an unusual environment: in a clone of the commit, in a path with
# blanks, with umask 077, 60 s after the boot, in another time zone, in a locale that is not generated, and with only
# those environment variables that programs and downloads need.
#
#   tools/test-elsewhere.sh [PYTEST-ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
uptime=60
tests=(
    tests/test_environment.py tests/cli
    tests/adapters/books/test_metadata_dir.py tests/adapters/books/test_timestamps.py
    tests/machine/test_doctor.py
)
# Of those with NVML what goes by the time since the boot, and what has the real clock.
nvml=(
    soon_after_a_boot_fewer_devices_than_before_are_not_believed in_the_first_minutes_of_a_host_only_fewer_devices_have_to_wait
    a_while_after_a_boot_fewer_devices_are_believed a_layout_that_is_back_before_anybody_acted_leaves_no_trace
    the_process_of_a_real_container_keeps_its_slot a_daemon_survives_a_hanging_nvml_and_releases_when_it_answers
)
tests+=("${nvml[@]/#/tests/integration/test_nvml.py::test_}")

# A time namespace: offsets are relative to the initial namespace, also in a nested one (time_namespaces(7)).
just_booted=(unshare --time --fork)
for clock in boottime monotonic; do
    offset=$(awk -v clock="$clock" '$1 == clock { print $2 }' /proc/self/timens_offsets) || offset=
    if [[ -z $offset ]] || ! unshare --time true 2>/dev/null; then
        echo "test-elsewhere: cannot create a time namespace; it needs root, Linux 5.6 and util-linux 2.36" >&2
        exit 1
    fi
    up=$(python3 -c "import time; print(int(time.clock_gettime(time.CLOCK_${clock^^})))")
    just_booted+=("--$clock=$((offset - (up > uptime ? up - uptime : 0)))")
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
output=$(elsewhere make setup)
if [[ $output ]]; then
    printf 'test-elsewhere: a second make setup was not a no-op:\n%s\n' "$output" >&2
    exit 1
fi
elsewhere make --no-print-directory demo >/dev/null
# Streams that cannot be written are the same everywhere: make test and make test-pythons try them.
elsewhere make --no-print-directory test ARGS="-q --ignore=tests/cli/test_streams.py ${tests[*]} $*"
