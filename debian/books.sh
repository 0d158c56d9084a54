# shellcheck shell=sh
# Whoever may write to the folder of the books could exchange what is in it for something else, as
# long as it was not sticky; and of a sticky one only its owner replaces the state.

# Whether ds01d is to be the only writer of the books.
is_only_writer() {
    grep -Eqs '^[[:space:]]*writers[[:space:]]*=[[:space:]]*"service"' /etc/ds01/ds01d.toml
}

# Where others write the books, too: ds01d has to write what they write, and they what it writes.
share_books() {
    if [ -d /run/systemd/system ] && ! is_only_writer; then
        systemd-tmpfiles --create /usr/share/ds01d/group.tmpfiles || :
    fi
}

# The folders of the books become ds01d's where they are root's, and the first one sticky. A folder
# that an administrator has given to somebody else stays as it is: `ds01ctl doctor` says so.
# -h: should somebody have put a link there, nothing behind it is changed.
own_books() {
    for folder in /var/lib/ds01 /var/lib/ds01/container-metadata $(is_only_writer && echo /var/log/ds01); do
        if [ -d "$folder" ] && [ ! -L "$folder" ] && [ "$(stat -c %u "$folder")" = 0 ]; then
            chown -h ds01d "$folder"
        fi
        if [ "$folder" = /var/lib/ds01 ] && [ "$(stat -c %U "$folder" 2>/dev/null)" = ds01d ]; then
            chmod +t "$folder"
        fi
    done
    # In a sticky folder fs.protected_regular keeps members from files of others than its owner.
    if [ "$(stat -c %U /var/lib/ds01 2>/dev/null)" = ds01d ]; then
        for file in /var/lib/ds01/gpu-state.json /var/lib/ds01/gpu-state.json.lock; do
            if [ -f "$file" ] && [ ! -L "$file" ] && [ "$(stat -c %h "$file")" = 1 ]; then
                chown -h ds01d "$file"
            fi
        done
    fi
}
