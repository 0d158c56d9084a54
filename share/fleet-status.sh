#!/bin/sh
# Answers `ds01ctl fleet`, and nothing else: the forced command of a key that may only see the status,
# as that of ds01d-hosts on other hosts. In ~/.ssh/authorized_keys, all on one line:
#     restrict,command="/usr/share/ds01d/fleet-status.sh" ssh-ed25519 AAAA...
# $1: daemon.state_dir, where it is not the default. Everybody may read what this prints.
set -eu

limit=8388608
state_dir=${1:-/var/lib/ds01d}

# Of what was asked only the mark is used, and it is hexadecimal. It separates the parts of the answer
# from whatever else a login may print.
mark=$(printf '%.8192s' "${SSH_ORIGINAL_COMMAND:-}" | tr -c '0-9a-f' '\n' | grep -E '^[0-9a-f]{32}$' | head -n 1) || mark=
if [ -z "$mark" ]; then
    echo 'this key may only be used by ds01ctl fleet' >&2
    exit 1
fi

# The clock first: a status is never younger than that.
printf '\n%s %s\n' "$mark" "$(date +%s)"
head -c "$limit" "$state_dir/status.json" || :
printf '\n%s \n' "$mark"
head -c "$limit" /run/ds01d/status.json 2>/dev/null || :
printf '\n%s end\n' "$mark"
