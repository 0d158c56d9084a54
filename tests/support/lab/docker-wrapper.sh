#!/bin/bash
# A stand-in for a lab's docker wrapper: asks the allocator for the GPUs of `--gpus N`, names them in
# the arguments as it does (without inner quotes), and becomes docker.
# LAB_ALLOCATOR, LAB_DOCKER: what to call; LAB_USER: for whom; LAB_PATIENCE_S: how long to ask again;
# LAB_PAUSE_S: how long what it does before docker takes.
source "${BASH_SOURCE[0]%/*}/parsing.sh"

count=0 name=ds01-auto-$EPOCHSECONDS-$$ words=()
while (($#)); do
  case $1 in
  --gpus) count=$2 words+=(--gpus GPUS) && shift ;;
  --name) name=$2 words+=(--name "$2") && shift ;;
  *) words+=("$1") ;;
  esac
  shift
done

ask() {
  if ((count > 1)); then
    python3 "$LAB_ALLOCATOR" allocate-multi "$LAB_USER" "$name" docker "$count" 2>&1
  else
    python3 "$LAB_ALLOCATOR" allocate-external "$LAB_USER" docker 2>&1
  fi
}

if ((count)); then
  ((count > 1)) && key=DOCKER_IDS || key=DOCKER_ID
  end=$((SECONDS + ${LAB_PATIENCE_S:-180}))
  while :; do
    text=$(ask)
    answer=$(read_as_wrapper $? "$text" "$key")
    case $answer in
    given*) break ;;
    refused*) echo "quota: ${answer#refused }" >&2 && exit 1 ;;
    esac
    ((SECONDS < end)) || { echo "timeout: $text" >&2 && exit 1; }
    sleep 0.3
  done
  ids=${answer#given }
  # The list is one word, which docker refuses if there are two of them.
  words=("${words[@]/#GPUS/device=$ids}")
  command=${words[0]}
  words=("$command" --label "ds01.user=$LAB_USER" --label ds01.gpu.uuids="$ids" "${words[@]:1}")
fi
sleep "${LAB_PAUSE_S:-0}"
exec $LAB_DOCKER "${words[@]}"
