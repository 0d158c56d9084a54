# shellcheck shell=sh
# A user who may write to the directory of the books could replace its files, unless the directory is
# sticky. In a sticky directory only its owner can replace the state.

# Whether ds01d is to be the only writer of the books.
is_only_writer() {
    grep -Eqs "^[[:space:]]*writers[[:space:]]*=[[:space:]]*[\"']service[\"']" /etc/ds01/ds01d.toml
}

# Whether the lab's allocator keeps no books: whose container names a GPU holds it, and /var/lib/ds01 and
# /var/log/ds01 are its scripts' alone (decision 238: the sticky bit would break these scripts).
is_lab_without_books() {
    [ -e "${DPKG_ROOT:-}/opt/ds01-infra/scripts/docker/gpu_allocator_v2.py" ] &&
        [ ! -e "${DPKG_ROOT:-}/var/lib/ds01/gpu-state.json" ]
}

# make_config VERSION: the configuration, at the first installation (no VERSION configured before) and if
# there is none yet. It is no conffile: what was chosen here would make dpkg ask at each upgrade that
# brings a changed one, and an unattended upgrade fail. On a host without an allocator and its files,
# Docker is the books, and there is nothing that ds01d could only observe. Beside an allocator without
# books it observes, with logs in a folder of its own; and as there, a stopped container keeps its GPU
# until something removes it, and two containers never share one.
make_config() {
    config=${DPKG_ROOT:-}/etc/ds01/ds01d.toml
    if [ -n "$1" ] || [ -e "$config" ] || [ -L "$config" ]; then
        return
    fi
    set -- files observe
    lab='s|^|&|'
    if is_lab_without_books; then
        set -- docker observe
        lab='s|"/var/log/ds01/|"/var/log/ds01d/|; s|/ds01-infra/config/resource|/ds01-infra/config/runtime/resource|'
        lab="$lab; s|^expired_holds = \"release\"\$|expired_holds = \"report\"|"
        lab="$lab; s|^sharing = \"when-full\"\$|sharing = \"never\"|"
        # Its monitoring, which Compose starts: by label, or by the names that its scripts look for.
        lab="$lab; s|^labels = \[\"ds01.protected=true\"|&, \"ds01.monitoring\"|; s|^names = \[|&"
        for part in prometheus grafana alertmanager dcgm-exporter; do
            lab="$lab\"ds01-$part*\", "
        done
        lab="$lab\"ds01-node-exporter*\"|"
    elif [ ! -e "${DPKG_ROOT:-}/opt/ds01-infra" ] && [ ! -e "${DPKG_ROOT:-}/var/lib/ds01/gpu-state.json" ]; then
        set -- docker repair
    fi
    mkdir -p "${config%/*}"
    sed -e "s/^kind = \"files\"$/kind = \"$1\"/" -e "s/^mode = \"observe\"$/mode = \"$2\"/" -e "$lab" \
        "${DPKG_ROOT:-}/usr/share/ds01d/ds01d.toml" >"$config.dpkg-new"
    mv "$config.dpkg-new" "$config"
}

# With other writers of the books: ds01d and they have to be able to write each other's files.
share_books() {
    if [ -d /run/systemd/system ] && ! is_only_writer && ! is_lab_without_books; then
        systemd-tmpfiles --create /usr/share/ds01d/group.tmpfiles || :
    fi
}

# Change the owner of the books' directories from root to ds01d, and make the first one sticky. A
# directory that an administrator gave to another user does not change: `ds01ctl doctor` reports it.
# -h: if a directory was replaced by a symbolic link, its target does not change.
chown_books() {
    if is_lab_without_books; then
        return
    fi
    for folder in /var/lib/ds01 /var/lib/ds01/container-metadata $(is_only_writer && echo /var/log/ds01); do
        if [ -d "$folder" ] && [ ! -L "$folder" ] && [ "$(stat -c %u "$folder")" = 0 ]; then
            chown -h ds01d "$folder"
        fi
        if [ "$folder" = /var/lib/ds01 ] && [ "$(stat -c %U "$folder" 2>/dev/null)" = ds01d ]; then
            chmod +t "$folder"
        fi
    done
    # In a sticky directory fs.protected_regular lets group members write only its owner's files.
    if [ "$(stat -c %U /var/lib/ds01 2>/dev/null)" = ds01d ]; then
        for file in /var/lib/ds01/gpu-state.json /var/lib/ds01/gpu-state.json.lock; do
            if [ -f "$file" ] && [ ! -L "$file" ] && [ "$(stat -c %h "$file")" = 1 ]; then
                chown -h ds01d "$file"
            fi
        done
    fi
}
