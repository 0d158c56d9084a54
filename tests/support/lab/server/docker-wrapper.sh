#!/bin/bash
# A stand-in for the lab's wrapper of docker where the lab has it: /usr/local/bin/docker leads here. Which
# GPU, and how long to ask for it, is the matter of tests/support/lab, put beside this file.
case ${1-} in
run | create) ;;
*) exec /usr/bin/docker "$@" ;;
esac
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export LAB_ALLOCATOR=$here/gpu_allocator_v2.py LAB_DOCKER=/usr/bin/docker LAB_USER
LAB_USER=$(id -un)
exec "$here/lab/docker-wrapper.sh" "$1" --cgroup-parent "ds01-student-$LAB_USER.slice" \
    --label ds01.managed=true --label ds01.container_type=docker --label "ds01.user=$LAB_USER" "${@:2}"
