#!/bin/sh
# For cron lines and habits that call the old script by its path, also as `bash PATH`: put a link to this
# file, or a copy, in the old place. Options and exit codes are those of reconcile-gpu-state, which it becomes.
#
# That is found beside this file (also through a symbolic link), on PATH, or in /opt/ds01d.
here=$(dirname -- "$(readlink -f -- "$0")")
for found in "$here/../../bin/reconcile-gpu-state" "$(command -v reconcile-gpu-state)" \
    /usr/bin/reconcile-gpu-state /opt/ds01d/bin/reconcile-gpu-state; do
    if [ -f "$found" ] && [ -x "$found" ] && ! [ "$found" -ef "$0" ]; then
        exec "$found" "$@"
    fi
done
echo "reconcile-gpu-state.sh: reconcile-gpu-state was not found: install ds01d" >&2
exit 1
