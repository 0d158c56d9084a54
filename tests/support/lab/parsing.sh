# How the scripts of a lab read what its allocator prints: by globs over stdout and stderr as one.
# Each function gets the exit code and that text, and prints what the script takes from it.

# The docker wrapper: "given IDS", "refused TEXT TO SHOW", or "again".
read_as_wrapper() {
  local code=$1 text=$2 key=$3 rest
  if ((code == 0)) && [[ $text == *"$key="* ]]; then
    rest=${text#*"$key="}
    echo "given ${rest%%[[:space:]]*}"
  elif [[ $text == *QUOTA_EXCEEDED* || $text == *USER_AT_LIMIT* ||
    $text == *EXCEEDS_TOTAL_LIMIT* || $text == *EXCEEDS_CONTAINER_LIMIT* ]]; then
    [[ $text =~ \(([^\)]*)\) ]] && rest=${BASH_REMATCH[1]}
    echo "refused $rest"
  else
    echo again
  fi
}

# mlc-create-wrapper: "given SLOT ID SLOTS IDS COUNT" (- for what is not there), or its box.
read_as_mlc() {
  local code=$1 text=$2 slot
  if ((code == 0)) && [[ $text == *"✓ Allocated"* ]]; then
    slot=$(sed -n 's/.*GPU\/MIG \([^ ]*\) to .*/\1/p' <<<"$text" | head -n 1)
    echo "given ${slot:--} $(_value DOCKER_ID "$text") $(_value GPU_SLOTS "$text")" \
      "$(_value DOCKER_IDS "$text") $(_value SLOT_COUNT "$text")"
    return
  fi
  case $text in
  *USER_AT_LIMIT*)
    [[ $text =~ \(([0-9]+)/([0-9]+)\) ]] && echo "limit ${BASH_REMATCH[1]} ${BASH_REMATCH[2]}" ||
      echo "limit ? ?"
    ;;
  *FULL_GPU_NOT_ALLOWED*) echo no-full-gpu ;;
  *"No GPUs available"* | *"all allocated"*) echo no-gpu ;;
  *"No MIG instances"* | *"only full GPUs"*) echo no-mig ;;
  *CONTAINER_LIMIT*) echo "container-limit ?" ;;
  *) echo other ;;
  esac
}

_value() {
  local value
  value=$(grep "^$1=" <<<"$2" | head -n 1 | cut -d = -f 2)
  echo "${value:--}"
}

# cleanup-stale-gpu-allocations: how many lines it counts, and the names in them.
read_as_cleanup() {
  local line names=()
  while read -r line; do
    if [[ $line == *Removed* || $line == *Released* ]]; then
      line=${line#*"✓ Removed "}
      names+=("${line%%:*}")
    fi
  done <<<"$1"
  echo "${#names[@]} ${names[*]}"
}
