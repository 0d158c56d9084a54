# fish completion for ds01-allocator, which is not a click command.

# The words after the program that are no options, without the one at the cursor.
function __ds01_allocator_arguments
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case --config
                set -e words[1]
            case '-*'
            case '*'
                echo $words[1]
        end
        set -e words[1]
    end
end

# Whether the next argument is the first one of one of these commands; without one, the command.
function __ds01_allocator_wants
    set -l given (__ds01_allocator_arguments)
    if not set -q argv[1]
        not set -q given[1]
    else
        test (count $given) -eq 1; and contains -- $given[1] $argv
    end
end

# What the books have: "containers" or "users". Words that a shell would act on are left out.
function __ds01_allocator_names --argument-names kind
    set -l words (commandline -opc)
    set -l config (string match -r -- '^--config=.*' $words)
    if set -l place (contains -i -- --config $words)
        set config --config $words[(math $place + 1)]
    end
    ds01-allocator $config status --json 2>/dev/null | /usr/bin/python3 -I -c '
import json, re, sys
found = json.load(sys.stdin)["gpus"]
names = {name for slot in found for name in slot[sys.argv[1]]}
plain = re.compile(r"[\\w.:@%+,=/][\\w.:@%+,=/#-]*").fullmatch
print("\\n".join(sorted(filter(plain, names))))
' $kind 2>/dev/null
end

complete -c ds01-allocator -f
complete -c ds01-allocator -l config -r -F -d 'configuration file'
complete -c ds01-allocator -l json -d 'one JSON object'
complete -c ds01-allocator -l version -d 'the version'
complete -c ds01-allocator -l help -d 'how to call it'
complete -c ds01-allocator -n __ds01_allocator_wants -a status -d 'the slots and who has them'
complete -c ds01-allocator -n __ds01_allocator_wants -a allocate -d 'book a slot for a container of a user'
complete -c ds01-allocator -n __ds01_allocator_wants -a release -d 'give back the slots of a container'
complete -c ds01-allocator -n __ds01_allocator_wants -a mark-stopped -d 'record that a container was stopped'
complete -c ds01-allocator -n __ds01_allocator_wants -a release-stale -d 'release what is over'
complete -c ds01-allocator -n __ds01_allocator_wants -a user-status -d 'what a user has'
complete -c ds01-allocator -n __ds01_allocator_wants -a user-count -d 'how many slots a user has'
complete -c ds01-allocator -n __ds01_allocator_wants -a sync -d 'take over the devices that there are'
complete -c ds01-allocator -n '__ds01_allocator_wants release mark-stopped' \
    -a '(__ds01_allocator_names containers)'
complete -c ds01-allocator -n '__ds01_allocator_wants allocate release-stale user-status user-count' \
    -a '(__ds01_allocator_names users)'
