#!/usr/bin/env bash
# Make this clone ready to work in: system packages (root only), then .venv with ds01d and its tools.
#
#   tools/setup.sh            (or: make setup)
#   PYTHON=python3.12 tools/setup.sh
#
# Safe to repeat, to interrupt and to start twice at once. Asks nothing. Never touches a Docker that is
# already there, and never starts the one it installs: the tests start private engines of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where users other than root do not look for dockerd
asked=${PYTHON:-}                          # the interpreter asked for, if any
started=$SECONDS

log=
policy=/usr/sbin/policy-rc.d
mark='written by tools/setup.sh of ds01d'

drop_policy() {
    if grep -qs "$mark" "$policy"; then rm -f "$policy"; fi
}

tidy() {
    rm -f "$log"
    if ((EUID == 0)); then drop_policy; fi
}
trap tidy EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# quietly WHAT COMMAND...: one line that says what happens; the command's output only if it fails.
quietly() {
    local what=$1
    shift
    say "$what"
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        die "failed: $what" "the command was: $*"
    fi
    rm -f "$log"
    log=
}

# ---------------------------------------------------------------- what is missing on this machine

has() { command -v "$1" >/dev/null 2>&1; }
installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]; }
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

# can_build PYTHON: it has venv and, for systemd-python, its headers.
can_build() {
    "$1" - >/dev/null 2>&1 <<'PY'
import ensurepip, pathlib, sysconfig, venv
pathlib.Path(sysconfig.get_path("include"), "Python.h").stat()
PY
}

find_python() {
    local candidate
    for candidate in ${asked:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if recent "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

# docker.io carries the client too, except on Debian 13 and later.
has_client_apart() {
    local ID='' VERSION_ID=''
    # shellcheck source=/dev/null
    . /etc/os-release
    [[ $ID == debian && ${VERSION_ID:-99} -ge 13 ]]
}

missing_packages() {
    local python version
    has dockerd || echo docker.io # a docker-ce that is there serves as well; a mere client does not
    { ! has docker && has_client_apart && echo docker-cli; } || true
    # Docker 20.10, on which tests run where another one is the distribution's (simulation/engines.py), needs it.
    [[ $(ldconfig -p) == *libdevmapper.so.1.02.1* ]] || echo libdevmapper1.02.1
    { has systemd-nspawn && [[ -x /lib/systemd/systemd ]]; } || echo systemd-container
    installed busybox-static || echo busybox-static
    has promtool || echo prometheus # its server is never started here
    has dh || echo debhelper   # builds the Debian package
    has mandoc || echo mandoc  # checks the manual pages
    has logrotate || echo logrotate
    # Every Debian package is built with it (Debian Policy 4.2): dpkg-buildpackage refuses without, whatever
    # compiler there is.
    installed build-essential || echo build-essential
    has pkg-config || echo pkg-config
    pkg-config --exists libsystemd 2>/dev/null || echo libsystemd-dev
    # The machine tests install the service as a server has it: on the distribution's interpreter.
    can_build /usr/bin/python3 || printf '%s\n' python3 python3-dev python3-venv
    python=$(find_python)
    if [[ $python == /usr/bin/* ]] && ! can_build "$python"; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        printf '%s\n' "python$version-dev" "python$version-venv"
    fi
}

# ---------------------------------------------------------------- system packages

# services_of PACKAGE...: the units that these would start and enable, of which only files are wanted here.
# What is there already is somebody's.
services_of() {
    local package unit
    for package; do
        case $package in
            docker.io) printf '%s\n' docker.socket docker.service containerd.service ;;
            prometheus) echo prometheus.service ;;
        esac
    done | while read -r unit; do unit_exists "$unit" || echo "$unit"; done
}

unit_exists() {
    local folder
    for folder in /etc /run /usr/local/lib /usr/lib /lib; do
        if [[ -e $folder/systemd/system/$1 ]]; then return; fi
    done
    return 1
}

# for_administrator PACKAGE...: the commands that do what system_packages does as root.
for_administrator() {
    local -a units=()
    if has systemctl; then mapfile -t units < <(services_of "$@"); fi
    if ((${#units[@]})); then echo "  systemctl mask ${units[*]}"; fi
    echo "  apt-get update && apt-get install -y --no-install-recommends --no-remove $*"
    if ((${#units[@]})); then
        echo "  systemctl unmask ${units[*]}"
        echo "  systemctl disable ${units[*]}"
    fi
}

# Package scripts ask policy-rc.d before they start a service; 101 forbids it.
forbid_services() {
    local rc=0
    drop_policy # left behind by a run that was killed
    if [[ -e $policy ]]; then
        "$policy" docker start >/dev/null 2>&1 </dev/null || rc=$?
        if ((rc == 101)); then return; fi
        die "$policy would let the packages docker.io and prometheus start their services." \
            "Install these yourself, then run this again: $*"
    fi
    printf '#!/bin/sh\n# %s; removed when it ends\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
}

system_packages() {
    local -a missing units
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]} == 0)); then return; fi
    has apt-get || die "missing on this machine: ${missing[*]}" "There is no apt-get here: install what they stand for."
    if ((EUID != 0)); then
        die "some system packages are missing. An administrator must run (no service is started or enabled):
$(for_administrator "${missing[@]}")"
    fi
    mapfile -t units < <(services_of "${missing[@]}")
    export DEBIAN_FRONTEND=noninteractive
    forbid_services "${missing[@]}"
    if compgen -G '/var/lib/dpkg/updates/[0-9]*' >/dev/null; then # where apt-get would refuse
        quietly "finishing an installation that was interrupted" dpkg --configure -a
    fi
    quietly "reading the package lists" apt-get -q update
    # --no-remove: rather fail than replace something that is there.
    quietly "installing ${missing[*]} (no service is started)" \
        apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends --no-remove "${missing[@]}"
    if ((${#units[@]})) && ! systemctl --quiet disable "${units[@]}" >/dev/null 2>&1; then
        say "these would start at the next boot: ${units[*]}"
    fi
    drop_policy
    hash -r
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || die "installed, and still not usable: ${missing[*]}"
}

# ---------------------------------------------------------------- the virtual environment

stamp=.venv/.ds01d-setup

fingerprint() { # of what .venv is made from
    printf '%s\n' "$root"
    cksum pyproject.toml requirements.lock tools/setup.sh
}

is_ready() {
    [[ -e $stamp && $(<"$stamp") == "$(fingerprint)" ]] && fits && .venv/bin/python -c 'import ds01d'
}

# fits: .venv runs, is of this place, and of the interpreter asked for.
fits() {
    [[ -x .venv/bin/pip ]] && .venv/bin/python -c '' 2>/dev/null || return 1
    # The second line names it where the path is long or has blanks, which no #! line can have.
    [[ $(head -n 2 .venv/bin/pip) == *"$root/.venv/"* ]] || return 1
    [[ -z $asked || $(identity "$asked") == "$(identity .venv/bin/python)" ]]
}

identity() { "$1" -c 'import sys; print(sys.version, sys.base_prefix)'; }

environment() {
    local python
    if is_ready; then return; fi
    rm -f "$stamp"
    if ! fits; then
        python=$(find_python)
        if [[ -z $python ]]; then
            die "no Python 3.10 or later was found. Name one: make setup PYTHON=/path/to/python3"
        fi
        quietly "creating .venv with $("$python" -V 2>&1), $python" "$python" -m venv --clear .venv
    fi
    # Builds (systemd-python, ds01d) take their tools from the lock too. PEP 517, because Debian 12's pip
    # would otherwise want a package wheel in .venv.
    tools/constraints.sh >.venv/constraints.txt
    export PIP_CONSTRAINT=.venv/constraints.txt PIP_USE_PEP517=1 # a list that blanks separate
    # --no-compile: most of it is never imported, and what is gets compiled then. It takes half of the time.
    quietly "installing what requirements.lock names into .venv" \
        .venv/bin/python -m pip install --quiet --no-compile --require-hashes --requirement requirements.lock
    quietly "installing ds01d into .venv" \
        .venv/bin/python -m pip install --quiet --no-deps --editable .
    fingerprint >"$stamp.new"
    mv "$stamp.new" "$stamp" # last: an interrupted run is done again
    say "ready after $((SECONDS - started)) s"
}

if [[ -n $asked ]] && ! recent "$asked"; then
    die "PYTHON=$asked does not start, or is older than 3.10. Under pyenv name its file: ~/.pyenv/versions/3.12.*/bin/python3.12"
fi
exec {lock}>.setup.lock
if ! flock --nonblock "$lock"; then
    say "waiting for another setup of this clone"
    flock "$lock"
fi
system_packages
environment
