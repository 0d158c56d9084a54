#!/bin/bash
# A stand-in for the lab's wrapper of docker, in our own words: for `run` and `create` it allocates a GPU,
# puts labels and the cgroup before the caller's words, names the GPU by its UUID, and becomes docker.
real=/usr/bin/docker
allocator=/opt/ds01-infra/scripts/docker/gpu_allocator_v2.py
case ${1-} in
run | create) ;;
*) exec "$real" "$@" ;;
esac
[ "${DS01_WRAPPER_BYPASS:-0}" = 0 ] || exec "$real" "$@"

user=$(id -un)
count=
for word; do
    [ "${previous-}" != --gpus ] || count=$word
    case $word in --gpus=*) count=${word#*=} ;; esac
    previous=$word
done
labels=(--label "ds01.user=$user" --label ds01.managed=true --label ds01.container_type=docker)
ids=
if [ -n "$count" ] && [[ $count != device=GPU-* ]]; then
    [[ $count =~ ^[0-9]+$ ]] || count=1
    deadline=$((SECONDS + ${WRAPPER_WAIT_S:-180}))
    while :; do
        if [ "$count" -gt 1 ]; then
            answer=$(python3 "$allocator" allocate-multi "$user" "ds01-auto-$$" docker "$count" 2>&1)
        else
            answer=$(python3 "$allocator" allocate-external "$user" docker 2>&1)
        fi
        status=$?
        ids=$(sed -n 's/^DOCKER_IDS\{0,1\}=\([^ ]*\).*/\1/p' <<<"$answer" | head -n 1)
        [ "$status" != 0 ] || [ -z "$ids" ] || break
        case $answer in
        *QUOTA_EXCEEDED* | *USER_AT_LIMIT* | *EXCEEDS_TOTAL_LIMIT* | *EXCEEDS_CONTAINER_LIMIT*)
            echo "GPU quota: $answer" >&2
            exit 1
            ;;
        esac
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "no GPU within the time: $answer" >&2
            exit 1
        fi
        echo "Waiting for GPU availability…" >&2
        sleep 1
    done
    labels+=(--label "ds01.gpu_slot=$ids" --label ds01.gpu_ephemeral=true)
fi

command=$1
shift
words=()
while [ $# -gt 0 ]; do
    case $1 in
    --gpus) words+=(--gpus "device=${ids:-$2}") && shift ;;
    --gpus=*) words+=(--gpus "device=${ids:-${1#*=}}") ;;
    *) words+=("$1") ;;
    esac
    shift
done
exec "$real" "$command" --cgroup-parent "ds01-student-$user.slice" "${labels[@]}" "${words[@]}"
