#!/bin/sh
# For cron jobs and users that call the old script by its path, also as `bash PATH`: replace the old script
# with a link to this file, or with a copy. It executes reconcile-gpu-state, with the same options and exit
# codes.
#
# It looks for that program beside this file (also through a symbolic link), on PATH, and in /opt/ds01d.
folder=$(dirname -- "$(readlink -f -- "$0")")
for program in "$folder/../../bin/reconcile-gpu-state" "$(command -v reconcile-gpu-state)" \
    /usr/bin/reconcile-gpu-state /opt/ds01d/bin/reconcile-gpu-state; do
    if [ -f "$program" ] && [ -x "$program" ] && ! [ "$program" -ef "$0" ]; then
        exec "$program" "$@"
    fi
done
echo "reconcile-gpu-state.sh: reconcile-gpu-state not found; fix: install ds01d" >&2
exit 1
