#!/usr/bin/env bash
# Build the Debian package of this tree, for the distribution that this runs on, and wheel and source
# archive; all into dist/, or into the folder that is named. `make package` sets up what it takes.
#
#   tools/package.sh [FOLDER]
#
# The package is built from the source archive, in a folder of its own, so what it needs is in there.
set -euo pipefail
umask 022 # what is in the package is for everybody
out=$(realpath -m "${1:-$(dirname "$0")/../dist}")
cd "$(dirname "$0")/.."
python=/usr/bin/python3 # the one that the service will run on, whatever .venv was made with

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

say() { printf "%4d s  %s\n" "$SECONDS" "$*"; }

# quietly WHAT COMMAND...: one line that says what happens; the command's output only if it fails.
quietly() {
    say "$1"
    shift
    if ! "$@" >"$work/log" 2>&1 </dev/null; then
        cat "$work/log" >&2
        exit 1
    fi
}

# The time of everything in it, so that two builds of one commit give the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

quietly "source archive" .venv/bin/python -m build --sdist --outdir "$work" .
archive=$(echo "$work"/ds01d-*.tar.gz)
source=${archive%.tar.gz}
version=${source##*/ds01d-}
tar -C "$work" -xzf "$archive"

tools/constraints.sh >"$work/constraints.txt"
export PIP_CONSTRAINT=$work/constraints.txt PIP_USE_PEP517=1
quietly "virtual environment of $("$python" -V)" "$python" -m venv "$work/venv"
wheels=$source/debian/wheels
# What is built here is checked before, what is downloaded afterwards: pip would want a hash of ds01d too.
awk '/^systemd-python==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements.lock >"$work/built.txt"
# -g0: debugging information names the folder of this build.
CFLAGS=-g0 quietly "wheel of systemd-python" "$work/venv/bin/pip" wheel --no-deps --require-hashes \
    --wheel-dir "$wheels" --requirement "$work/built.txt"
quietly "wheels of ds01d and of its libraries" \
    "$work/venv/bin/pip" wheel --find-links "$wheels" --wheel-dir "$wheels" "${source}[dashboard]"
for wheel in "$wheels"/*.whl; do
    case ${wheel##*/} in ds01d-* | systemd_python-*) continue ;; esac
    if ! grep -qF "sha256:$(sha256sum "$wheel" | cut -d ' ' -f 1)" requirements.lock; then
        echo "${wheel##*/} is not what requirements.lock has" >&2
        exit 1
    fi
done
# textual and rich ask for these to show Markdown, which ds01d never does: nothing imports them.
rm "$wheels"/{linkify_it_py,markdown_it_py,mdit_py_plugins,mdurl}-*.whl

# One version for all, from ds01d/__init__.py, and the distribution behind it: the package for a newer
# one counts as newer. What Python calls 1.0rc1 is older than 1.0 for dpkg too.
# shellcheck source=/dev/null
. /etc/os-release
debian_version=$(sed -E 's/\.?(a|b|rc|dev)([0-9])/~\1\2/' <<<"$version")~$ID${VERSION_ID:-$VERSION_CODENAME}
cat >"$source/debian/changelog" <<CHANGELOG
ds01d ($debian_version) ${VERSION_CODENAME:-$ID}; urgency=medium

  * CHANGELOG.md says what is new.

 -- the ds01d authors <ds01d@localhost>  $(LC_ALL=C date -R -u -d "@$SOURCE_DATE_EPOCH")
CHANGELOG

cd "$source"
export PIP=$work/venv/bin/pip
quietly "Debian package $debian_version" dpkg-buildpackage --build=binary --no-sign
mv "$archive" "$source"/debian/wheels/ds01d-*.whl "$work"/*.deb "$out"
say "in $out: $(cd "$out" && echo ds01d[-_]"$version"*)"
