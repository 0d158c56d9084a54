#!/usr/bin/env bash
# Run the unit tests on each Python that ds01d supports and this machine has, with the libraries of
# requirements.lock, but not on those that EXCEPT names.
#
#   BOUNDS=yes    the oldest Python has the lowest versions that pyproject.toml allows instead, and the newest
#                 Python the newest ones that there are
#   BOUNDS=only   nothing but these two
#
# What the newest versions break is reported, in .venvs/newest.txt too, and fails nothing: then that Python
# has the locked ones as well. Each run has a virtual environment under .venvs/, made anew when pyproject.toml
# or requirements.lock changes; the one of the newest versions is brought up to date every time.
set -euo pipefail
cd "$(dirname "$0")/.."

versions=(3.10 3.11 3.12 3.13)
# Those that wait for engines, processes and faults run once, in `make test`. Of tests/adapters only what reads
# files with a library: PyYAML 6.0.3 and 6.0.4 differ in a way that changed quotas.
folders=(tests/decide tests/reconcile tests/reporting tests/daemon tests/cli tests/containers tests/test_config.py
    tests/adapters/books/test_{limits,quotas,state_format,state_file,metadata_dir}.py
    tests/adapters/host/test_image_catalogue.py tests/adapters/docker/test_parsing.py)
units='not docker and not machine and not gpu and not bench'
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM

# find_python VERSION: an interpreter of that version that starts and can make environments. A name on PATH
# proves nothing: pyenv has a shim for every version it knows, chosen or not.
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

has_headers() { # systemd-python is built for it
    "$1" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' \
        >/dev/null 2>&1
}

# environment PYTHON FOLDER locked|lowest|newest
environment() {
    local python=$1 folder=$2 libraries=$3 made_from lock
    mkdir -p .venvs
    exec {lock}>"$folder.lock"
    flock "$lock"
    made_from=$(printf '%s\n' "$PWD" "$python" && cksum pyproject.toml requirements.lock tools/constraints.sh)
    if ! [[ -e $folder/.ds01d && $(<"$folder/.ds01d") == "$made_from" ]] || ! "$folder/bin/python" -c ''; then
        "$python" -m venv --clear "$folder" || return
    elif [[ $libraries != newest ]]; then
        return
    fi
    constraints "$python" "$libraries" >"$folder/constraints.txt" &&
        PIP_CONSTRAINT=$folder/constraints.txt PIP_USE_PEP517=1 "$folder/bin/python" -m pip install --quiet --no-compile \
            --upgrade --upgrade-strategy eager --editable '.[test]' &&
        printf '%s\n' "$made_from" >"$folder/.ds01d"
}

constraints() { # PYTHON locked|lowest|newest
    case $2 in
        locked) tools/constraints.sh ;;
        lowest) tools/constraints.sh --lowest "$1" ;;
        newest) ;;
    esac
}

# unit_tests FOLDER ARGUMENT...: with few examples, CI's many are tried once: here it is the language that differs.
unit_tests() {
    local folder=$1
    shift
    DS01D_HYPOTHESIS=few "$folder/bin/python" -m pytest -q -m "$units" -p no:cacheprovider "${folders[@]}" "$@"
}

only_environments=
if [[ ${1:-} == --environments ]]; then # make them, and run nothing
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
    echo "none of these Pythons is on this machine: ${versions[*]}"
    exit 1
fi

# What to run: VERSION-LIBRARIES, which is also the name of its environment.
runs=()
if [[ ${BOUNDS:-} ]]; then runs+=("${present[0]}-lowest" "${present[-1]}-newest"); fi
for version in "${present[@]}"; do
    if [[ ${BOUNDS:-} != only && " ${EXCEPT:-} " != *" $version "* && " ${runs[*]:-}" != *" $version-"* ]]; then
        runs+=("$version-locked")
    fi
done

# start RUN: in the background, with its output in a file that is shown when its turn comes.
declare -A running
start() {
    local folder=.venvs/$1 python=${pythons[${1%-*}]}
    {
        environment "$python" "$folder" "${1#*-}" &&
            { [[ $only_environments ]] || unit_tests "$folder" "${arguments[@]}"; }
    } >"$logs/$1" 2>&1 </dev/null &
    running[$1]=$!
}

# finish RUN: wait for it, and show how it went.
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

# report_newest RUN: how many tests passed, which failed, and which libraries are not the locked ones.
report_newest() {
    printf 'newest libraries, Python %s: ' "${1%-*}"
    grep -E '^[0-9]+ (passed|failed)' "$logs/$1" || { echo 'no test ran' && tail -n 5 "$logs/$1"; }
    grep -E '^(FAILED|ERROR) ' "$logs/$1" | cut -c 1-160 || true
    printf 'not the locked versions: %s\n' "$({ ".venvs/$1/bin/python" -m pip list --format freeze |
        sed 's/_/-/g' | grep -viE '^(ds01d|pip|setuptools|wheel)==' |
        grep -vixFf <(tools/constraints.sh | sed 's/ .*//') || echo none; } | paste -sd ' ')"
}

rm -f .venvs/newest.txt
for run in "${runs[@]}"; do start "$run"; done
for run in "${runs[@]}"; do
    finish "$run" && how=passed || how=failed
    if [[ $run != *-newest ]]; then
        if [[ $how == failed ]]; then failed+=("$run"); fi
        continue
    fi
    if [[ $only_environments ]]; then continue; fi
    report_newest "$run" >.venvs/newest.txt
    # Newer libraries than the locked ones fail nothing; but then nothing is said of this Python yet.
    locked=${run%-*}-locked
    if [[ $how == failed && ${BOUNDS:-} != only ]]; then
        start "$locked"
        finish "$locked" || failed+=("$locked")
    fi
done

if [[ $only_environments ]]; then exit "${#failed[@]}"; fi
printf '\nunit tests passed: %s\n' "${passed[*]:-none}"
if [[ ${EXCEPT:-} ]]; then printf 'left out: %s\n' "$EXCEPT"; fi
if ((${#absent[@]})); then printf 'not found on this machine: %s\n' "${absent[*]}"; fi
if [[ -e .venvs/newest.txt ]]; then cat .venvs/newest.txt; fi
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[*]}"
    exit 1
fi
((${#runs[@]}))
