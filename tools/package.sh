#!/usr/bin/env bash
# Build the Debian package of this tree for the distribution of this host, the wheel and the source
# archive, into FOLDER (default: dist/). `make package` installs the required tools first.
#
#   tools/package.sh [FOLDER]
#
# The package is built from the source archive in a temporary folder, which proves that it is complete.
set -euo pipefail
umask 022 # every user may read the files of the package
out=$(realpath -m "${1:-$(dirname "$0")/../dist}")
cd "$(dirname "$0")/.."
python=/usr/bin/python3 # the interpreter of the service; .venv may have another one

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

info() { printf "%4d s  %s\n" "$SECONDS" "$*"; }

# quietly STEP COMMAND...: print the step, and the command's output only if it fails.
quietly() {
    info "$1"
    shift
    if ! "$@" >"$work/log" 2>&1 </dev/null; then
        cat "$work/log" >&2
        exit 1
    fi
}

# A release is a tag v1.2.3; without one (a clone without tags, an archive) the version is as it is written.
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' ds01d/__init__.py)
tag=$(git describe --exact-match --match 'v*' --tags 2>/dev/null || true)
if [[ -n $tag && $tag != "v$version" ]]; then
    echo "package: this commit is tagged $tag, but ds01d/__init__.py has version $version" >&2
    exit 1
fi

# The time of every file in the package, so that two builds of one commit are identical.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

quietly "source archive" .venv/bin/python -m build --sdist --outdir "$work" .
archive=$(echo "$work"/ds01d-*.tar.gz)
source=${archive%.tar.gz}
tar -C "$work" -xzf "$archive"

tools/constraints.sh >"$work/constraints.txt"
export PIP_CONSTRAINT=$work/constraints.txt PIP_USE_PEP517=1
quietly "virtual environment of $("$python" -V)" "$python" -m venv "$work/venv"
wheels=$source/debian/wheels
# The source of systemd-python is checked before its build. The downloaded wheels are checked after the
# download: with --require-hashes pip needs a hash of ds01d too.
awk '/^systemd-python==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock >"$work/built.txt"
# -g0: debugging information contains the path of the build folder.
CFLAGS=-g0 quietly "wheel of systemd-python" "$work/venv/bin/pip" wheel --no-deps --require-hashes \
    --wheel-dir "$wheels" --requirement "$work/built.txt"
quietly "wheels of ds01d and of its libraries" \
    "$work/venv/bin/pip" wheel --find-links "$wheels" --wheel-dir "$wheels" "${source}[dashboard]"
for wheel in "$wheels"/*.whl; do
    case ${wheel##*/} in ds01d-* | systemd_python-*) continue ;; esac
    if ! grep -qF "sha256:$(sha256sum "$wheel" | cut -d ' ' -f 1)" requirements.lock; then
        echo "package: the hash of ${wheel##*/} is not in requirements.lock" >&2
        exit 1
    fi
done
# textual and rich require these for Markdown, which ds01d never displays: nothing imports them.
rm "$wheels"/{linkify_it_py,markdown_it_py,mdit_py_plugins,mdurl}-*.whl

# The version of ds01d/__init__.py and the distribution: the package for a newer distribution is newer.
# 1.0rc1 becomes 1.0~rc1, which dpkg sorts before 1.0.
# shellcheck source=/dev/null
. /etc/os-release
debian_version=$(sed -E 's/\.?(a|b|rc|dev)([0-9])/~\1\2/' <<<"$version")~$ID${VERSION_ID:-$VERSION_CODENAME}
cat >"$source/debian/changelog" <<CHANGELOG
ds01d ($debian_version) ${VERSION_CODENAME:-$ID}; urgency=medium

  * See CHANGELOG.md.

 -- the ds01d authors <ds01d@localhost>  $(LC_ALL=C date -R -u -d "@$SOURCE_DATE_EPOCH")
CHANGELOG

cd "$source"
export PIP=$work/venv/bin/pip
quietly "Debian package $debian_version" dpkg-buildpackage --build=binary --no-sign
mv "$archive" "$source"/debian/wheels/ds01d-*.whl "$work"/*.deb "$out"
info "in $out: $(cd "$out" && echo ds01d[-_]"$version"*)"
