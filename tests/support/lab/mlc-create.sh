#!/bin/bash
# A stand-in for a lab's mlc-create: books for a name, makes a container of it to prepare an image,
# removes that, and creates the one that stays. Arguments: the name, the image.
# LAB_STEP_S: how long each step takes; LAB_END: after which step it dies; LAB_GAP: made between
# the two containers.
source "${BASH_SOURCE[0]%/*}/parsing.sh"
name=$1 image=$2

end_after() {
  sleep "${LAB_STEP_S:-0}"
  [[ ${LAB_END:-} != "$1" ]] || kill -9 $$
}

text=$(python3 "$LAB_ALLOCATOR" allocate "$LAB_USER" "$name" "${LAB_MOST:-2}" 10 2>&1)
read -r answer slot id _ < <(read_as_mlc $? "$text")
[[ $answer == given ]] || { echo "$answer: $text" >&2 && exit 1; }
end_after allocate
$LAB_DOCKER run -d --name "$name" --network none --gpus "device=$id" "$image" sleep 600 || exit
end_after prepare
$LAB_DOCKER rm -f "$name"
touch "${LAB_GAP:-/dev/null}"
end_after remove
$LAB_DOCKER create --name "$name" --network none --gpus "device=$id" \
  --label "ds01.user=$LAB_USER" --label "ds01.gpu_slot=$slot" "$image" sleep 600
