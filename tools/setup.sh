#!/usr/bin/env bash
# Set up this clone for development: system packages (root only), then .venv with ds01d and its tools.
#
#   tools/setup.sh            (or: make setup)
#   PYTHON=python3.12 tools/setup.sh
#
# Safe to repeat, to interrupt and to start twice at once. Asks no questions. Never changes an installed
# Docker, and never starts one that it installs: the tests start private engines.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # for dockerd; not in PATH of users other than root
requested=${PYTHON:-}                      # the requested interpreter, if any
started=$SECONDS

log=
policy=/usr/sbin/policy-rc.d
mark='written by tools/setup.sh of ds01d'

drop_policy() {
    if grep -qs "$mark" "$policy"; then rm -f "$policy"; fi
}

clean_up() {
    rm -f "$log"
    if ((EUID == 0)); then drop_policy; fi
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

info() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# quietly STEP COMMAND...: print the step, and the command's output only if it fails.
quietly() {
    local step=$1
    shift
    info "$step"
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        die "failed: $step" "command: $*"
    fi
    rm -f "$log"
    log=
}

# ---------------------------------------------------------------- missing packages

has() { command -v "$1" >/dev/null 2>&1; }
installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]; }
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

# can_build PYTHON: whether it has venv and, for systemd-python, its headers.
can_build() {
    "$1" - >/dev/null 2>&1 <<'PY'
import ensurepip, pathlib, sysconfig, venv
pathlib.Path(sysconfig.get_path("include"), "Python.h").stat()
PY
}

find_python() {
    local candidate
    for candidate in ${requested:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if recent "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

# Whether the Docker client is a package of its own: Debian 13 and later. Elsewhere docker.io has it.
has_client_package() {
    local ID='' VERSION_ID=''
    # shellcheck source=/dev/null
    . /etc/os-release
    [[ $ID == debian && ${VERSION_ID:-99} -ge 13 ]]
}

# Tests of the web page look at it in a browser. Ubuntu has Chromium as a snap alone, which needs a running
# snapd: there these tests are skipped.
has_browser() { has chromium-headless-shell || has chromium || has google-chrome; }
has_browser_package() {
    local ID=''
    # shellcheck source=/dev/null
    . /etc/os-release
    [[ $ID == debian ]]
}

missing_packages() {
    local python version
    has dockerd || echo docker.io # an installed docker-ce is enough; a client alone is not
    { ! has docker && has_client_package && echo docker-cli; } || true
    # For Docker 20.10, which tests use where the distribution has another version (simulation/engines.py).
    [[ $(ldconfig -p) == *libdevmapper.so.1.02.1* ]] || echo libdevmapper1.02.1
    { has systemd-nspawn && [[ -x /lib/systemd/systemd ]]; } || echo systemd-container
    installed busybox-static || echo busybox-static
    has ssh || echo openssh-client # sshd of the tests is unpacked beside it, never installed
    has promtool || echo prometheus # the server is never started here
    has dh || echo debhelper   # builds the Debian package
    has mandoc || echo mandoc  # checks the manual pages
    has zsh || echo zsh        # both try what Tab completes
    has fish || echo fish
    has logrotate || echo logrotate
    installed libpam-systemd || echo libpam-systemd # who logs in on a booted machine has a session of logind
    { ! has_browser && has_browser_package && echo chromium-headless-shell; } || true
    has zstd || echo zstd # which logrotate may be configured to use
    # dpkg-buildpackage requires it (Debian Policy 4.2), also if another compiler is installed.
    installed build-essential || echo build-essential
    has pkg-config || echo pkg-config
    pkg-config --exists libsystemd 2>/dev/null || echo libsystemd-dev
    # The machine tests install the service as on a server: with the distribution's interpreter.
    can_build /usr/bin/python3 || printf '%s\n' python3 python3-dev python3-venv
    python=$(find_python)
    if [[ $python == /usr/bin/* ]] && ! can_build "$python"; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        printf '%s\n' "python$version-dev" "python$version-venv"
    fi
}

# ---------------------------------------------------------------- system packages

# services_of PACKAGE...: print the units that these would start and enable; only their files are needed
# here. Leaves out units that exist already: an administrator may use them.
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

# for_administrator PACKAGE...: print the commands that do as root what system_packages does.
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

# Package scripts run policy-rc.d before they start a service; exit code 101 forbids it.
forbid_services() {
    local rc=0
    drop_policy # left by a killed run
    if [[ -e $policy ]]; then
        "$policy" docker start >/dev/null 2>&1 </dev/null || rc=$?
        if ((rc == 101)); then return; fi
        die "$policy allows the packages docker.io and prometheus to start their services" \
            "fix: install these packages by hand, then run this again: $*"
    fi
    printf '#!/bin/sh\n# %s; removed when it ends\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
}

system_packages() {
    local -a missing units
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]} == 0)); then return; fi
    has apt-get || die "missing system packages: ${missing[*]}" "fix: there is no apt-get, install their equivalents by hand"
    if ((EUID != 0)); then
        die "missing system packages; an administrator must run (no service is started or enabled):
$(for_administrator "${missing[@]}")"
    fi
    mapfile -t units < <(services_of "${missing[@]}")
    export DEBIAN_FRONTEND=noninteractive
    forbid_services "${missing[@]}"
    if compgen -G '/var/lib/dpkg/updates/[0-9]*' >/dev/null; then # apt-get would fail
        quietly "completing an interrupted installation" dpkg --configure -a
    fi
    quietly "reading the package lists" apt-get -q update
    # --no-remove: fail instead of replacing an installed package.
    quietly "installing ${missing[*]} (no service is started)" \
        apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends --no-remove "${missing[@]}"
    if ((${#units[@]})) && ! systemctl --quiet disable "${units[@]}" >/dev/null 2>&1; then
        info "cannot disable these units, they start at the next boot: ${units[*]}"
    fi
    drop_policy
    hash -r
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || die "installed, but not usable: ${missing[*]}"
}

# ---------------------------------------------------------------- the virtual environment

stamp=.venv/.ds01d-setup

fingerprint() { # of the inputs of .venv
    printf '%s\n' "$root"
    cksum pyproject.toml requirements.lock tools/setup.sh
}

is_ready() {
    [[ -e $stamp && $(<"$stamp") == "$(fingerprint)" ]] && is_usable && .venv/bin/python -c 'import ds01d'
}

# is_usable: .venv runs, was created in this folder, and has the requested interpreter.
is_usable() {
    [[ -x .venv/bin/pip ]] && .venv/bin/python -c '' 2>/dev/null || return 1
    # A path that is long or has blanks is in the second line: a #! line cannot contain it.
    [[ $(head -n 2 .venv/bin/pip) == *"$root/.venv/"* ]] || return 1
    [[ -z $requested || $(identity "$requested") == "$(identity .venv/bin/python)" ]]
}

identity() { "$1" -c 'import sys; print(sys.version, sys.base_prefix)'; }

environment() {
    local python
    if is_ready; then return; fi
    rm -f "$stamp"
    if ! is_usable; then
        python=$(find_python)
        if [[ -z $python ]]; then
            die "no Python 3.10 or later found; fix: make setup PYTHON=/path/to/python3"
        fi
        quietly "creating .venv with $("$python" -V 2>&1), $python" "$python" -m venv --clear .venv
    fi
    # Builds (systemd-python, ds01d) take their tools from the lock too. PEP 517, because otherwise Debian
    # 12's pip needs the package wheel in .venv.
    tools/constraints.sh >.venv/constraints.txt
    export PIP_CONSTRAINT=.venv/constraints.txt PIP_USE_PEP517=1 # relative: PIP_CONSTRAINT is split at blanks
    # --no-compile: takes half of the time. Most modules are never imported; the others are compiled on import.
    quietly "installing the packages of requirements.lock into .venv" \
        .venv/bin/python -m pip install --quiet --no-compile --require-hashes --requirement requirements.lock
    quietly "installing ds01d into .venv" \
        .venv/bin/python -m pip install --quiet --no-deps --editable .
    fingerprint >"$stamp.new"
    mv "$stamp.new" "$stamp" # last, so that an interrupted run is repeated
    info "ready after $((SECONDS - started)) s"
}

if [[ -n $requested ]] && ! recent "$requested"; then
    die "PYTHON=$requested does not start, or is older than 3.10; with pyenv give the path of the file: ~/.pyenv/versions/3.12.*/bin/python3.12"
fi
exec {lock}>.setup.lock
if ! flock --nonblock "$lock"; then
    info "waiting for another setup of this clone"
    flock "$lock"
fi
system_packages
environment
