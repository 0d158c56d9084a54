#!/usr/bin/env bash
# Run the unit tests on each supported Python of this machine except those in EXCEPT, with the libraries of
# requirements.lock.
#
#   BOUNDS=yes    use the lowest versions that pyproject.toml allows on the oldest Python instead, and the
#                 newest available versions on the newest Python
#   BOUNDS=only   only these two runs
#
# A failure with the newest versions is reported, also in .venvs/newest.txt, but is not an error: that Python
# then also runs with the locked versions. Each run has a virtual environment under .venvs/, which is created
# again when pyproject.toml or requirements.lock changes; the one of the newest versions is always updated.
set -euo pipefail
cd "$(dirname "$0")/.."

versions=(3.10 3.11 3.12 3.13)
# Tests that wait for engines, processes and faults run once, in `make test`. Of tests/adapters only the parsers
# that use a library: PyYAML 6.0.3 and 6.0.4 differ in a way that changed quotas.
folders=(tests/decide tests/reconcile tests/reporting tests/daemon tests/cli tests/containers tests/test_config.py
    tests/adapters/books/test_{limits,quotas,state_format,state_file,metadata_dir}.py
    tests/adapters/host/test_image_catalogue.py tests/adapters/docker/test_parsing.py)
units='not docker and not machine and not gpu and not bench and not python_neutral'
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM

# find_python VERSION: print an interpreter of that version that starts and can create environments. A name on
# PATH proves nothing: pyenv has a shim for every installed version, selected or not.
find_python() {
    local version=$1 candidate
    local -a candidates=("/usr/bin/python$version" "/usr/local/bin/python$version" "python$version")
    if command -v pyenv >/dev/null 2>&1; then
        candidates+=("$(pyenv root)/versions/$version".*/bin/"python$version")
    fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c "import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" \
            >/dev/null 2>&1 && has_headers "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

has_headers() { # for the build of systemd-python
    "$1" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' \
        >/dev/null 2>&1
}

# environment PYTHON FOLDER locked|lowest|newest
environment() {
    local python=$1 folder=$2 libraries=$3 fingerprint lock
    mkdir -p .venvs
    exec {lock}>"$folder.lock"
    flock "$lock"
    fingerprint=$(printf '%s\n' "$PWD" "$python" && cksum pyproject.toml requirements.lock tools/constraints.sh)
    if ! [[ -e $folder/.ds01d && $(<"$folder/.ds01d") == "$fingerprint" ]] || ! "$folder/bin/python" -c ''; then
        "$python" -m venv --clear "$folder" || return
    elif [[ $libraries != newest ]]; then
        return
    fi
    constraints "$python" "$libraries" >"$folder/constraints.txt" &&
        PIP_CONSTRAINT=$folder/constraints.txt PIP_USE_PEP517=1 "$folder/bin/python" -m pip install --quiet --no-compile \
            --upgrade --upgrade-strategy eager --editable '.[test]' &&
        printf '%s\n' "$fingerprint" >"$folder/.ds01d"
}

constraints() { # PYTHON locked|lowest|newest
    case $2 in
        locked) tools/constraints.sh ;;
        lowest) tools/constraints.sh --lowest "$1" ;;
        newest) ;;
    esac
}

# unit_tests FOLDER ARGUMENT...: with few Hypothesis examples, because these runs only compare Python versions.
unit_tests() {
    local folder=$1
    shift
    DS01D_HYPOTHESIS=few "$folder/bin/python" -m pytest -q -m "$units" -p no:cacheprovider "${folders[@]}" "$@"
}

only_environments=
if [[ ${1:-} == --environments ]]; then # create the environments only
    only_environments=yes
    shift
fi
arguments=("$@")

declare -A pythons
present=() absent=()
for version in "${versions[@]}"; do
    if python=$(find_python "$version"); then
        pythons[$version]=$python
        present+=("$version")
    else
        absent+=("$version")
    fi
done
if ((${#present[@]} == 0)); then
    echo "test-pythons: found none of these Python versions: ${versions[*]}"
    exit 1
fi

# The runs, VERSION-LIBRARIES, which is also the name of the environment.
runs=()
if [[ ${BOUNDS:-} ]]; then runs+=("${present[0]}-lowest" "${present[-1]}-newest"); fi
for version in "${present[@]}"; do
    if [[ ${BOUNDS:-} != only && " ${EXCEPT:-} " != *" $version "* && " ${runs[*]:-}" != *" $version-"* ]]; then
        runs+=("$version-locked")
    fi
done

# start RUN: run in the background, with the output in a file for `finish`.
declare -A running
start() {
    local folder=.venvs/$1 python=${pythons[${1%-*}]}
    {
        environment "$python" "$folder" "${1#*-}" &&
            { [[ $only_environments ]] || unit_tests "$folder" "${arguments[@]}"; }
    } >"$logs/$1" 2>&1 </dev/null &
    running[$1]=$!
}

# finish RUN: wait for it, and show the result.
passed=() failed=()
finish() {
    printf 'python %s, %s libraries: %s\n' "${1%-*}" "${1#*-}" "${pythons[${1%-*}]}"
    if wait "${running[$1]}"; then
        tail -n 1 "$logs/$1"
        passed+=("$1")
    else
        cat "$logs/$1"
        return 1
    fi
}

# report_newest RUN: print the number of passed tests, the failed ones, and the libraries that differ from the lock.
report_newest() {
    printf 'newest libraries, Python %s: ' "${1%-*}"
    grep -E '^(=+ )?[0-9]+ (passed|failed)' "$logs/$1" || { echo 'no test ran' && tail -n 5 "$logs/$1"; }
    grep -E '^(FAILED|ERROR) ' "$logs/$1" | cut -c 1-160 || true
    printf 'versions that differ from the lock: %s\n' "$({ ".venvs/$1/bin/python" -m pip list --format freeze |
        sed 's/_/-/g' | grep -viE '^(ds01d|pip|setuptools|wheel)==' |
        grep -vixFf <(tools/constraints.sh | sed 's/ .*//') || echo none; } | paste -sd ' ')"
}

rm -f .venvs/newest.txt
for run in "${runs[@]}"; do start "$run"; done
for run in "${runs[@]}"; do
    finish "$run" && result=passed || result=failed
    if [[ $run != *-newest ]]; then
        if [[ $result == failed ]]; then failed+=("$run"); fi
        continue
    fi
    if [[ $only_environments ]]; then continue; fi
    report_newest "$run" >.venvs/newest.txt
    # A failure with newer libraries is not an error, but proves nothing about this Python yet.
    locked=${run%-*}-locked
    if [[ $result == failed && ${BOUNDS:-} != only ]]; then
        start "$locked"
        finish "$locked" || failed+=("$locked")
    fi
done

if [[ $only_environments ]]; then exit "${#failed[@]}"; fi
printf '\nunit tests passed: %s\n' "${passed[*]:-none}"
if [[ ${EXCEPT:-} ]]; then printf 'excluded: %s\n' "$EXCEPT"; fi
if ((${#absent[@]})); then printf 'not found on this machine: %s\n' "${absent[*]}"; fi
if [[ -e .venvs/newest.txt ]]; then cat .venvs/newest.txt; fi
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[*]}"
    exit 1
fi
((${#runs[@]}))
