#!/usr/bin/env bash
# Run the unit tests on each Python that ds01d supports and this machine has.
# Each gets a virtual environment under .venvs/, made anew when pyproject.toml or requirements.lock changes.
set -euo pipefail
cd "$(dirname "$0")/.."

versions=(3.10 3.11 3.12 3.13)
# Those that wait for engines, processes and faults run once, in `make test`.
folders=(tests/decide tests/reconcile tests/ops tests/daemon tests/cli tests/containers tests/test_config.py)
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

# environment PYTHON FOLDER
environment() {
    local python=$1 folder=$2 made_from lock
    mkdir -p .venvs
    exec {lock}>"$folder.lock"
    flock "$lock"
    made_from=$(printf '%s\n' "$PWD" "$python" && cksum pyproject.toml requirements.lock)
    if [[ -e $folder/.ds01d && $(<"$folder/.ds01d") == "$made_from" ]] && "$folder/bin/python" -c ''; then
        return
    fi
    "$python" -m venv --clear "$folder" &&
        tools/constraints.sh >"$folder/constraints.txt" &&
        PIP_CONSTRAINT=$folder/constraints.txt PIP_USE_PEP517=1 \
            "$folder/bin/python" -m pip install --quiet --editable '.[test]' &&
        printf '%s\n' "$made_from" >"$folder/.ds01d"
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

# All at once, each with its output in a file, shown when its turn comes.
declare -A pythons running
ran=() absent=() failed=()
for version in "${versions[@]}"; do
    [[ " ${EXCEPT:-} " != *" $version "* ]] || continue
    if python=$(find_python "$version"); then
        pythons[$version]=$python
        {
            environment "$python" ".venvs/$version" &&
                { [[ $only_environments ]] || unit_tests ".venvs/$version" "$@"; }
        } >"$logs/$version" 2>&1 </dev/null &
        running[$version]=$!
    else
        absent+=("$version")
    fi
done

for version in "${versions[@]}"; do
    [[ -n ${pythons[$version]:-} ]] || continue
    printf 'python %s: %s\n' "$version" "${pythons[$version]}"
    if wait "${running[$version]}"; then
        tail -n 1 "$logs/$version"
        ran+=("$version")
    else
        cat "$logs/$version"
        failed+=("$version")
    fi
done

if [[ $only_environments ]]; then exit "${#failed[@]}"; fi
printf 'unit tests passed on: %s\n' "${ran[*]:-none}"
if [[ ${EXCEPT:-} ]]; then printf 'left out: %s\n' "$EXCEPT"; fi
if ((${#absent[@]})); then printf 'not found on this machine: %s\n' "${absent[*]}"; fi
if ((${#failed[@]})); then
    printf 'failed on: %s\n' "${failed[*]}"
    exit 1
fi
((${#ran[@]}))
