# shellcheck shell=sh
# Sourced by the bash and dash scripts that create, start, stop and remove containers:
#
#   . /usr/share/ds01d/container-logger.sh
#   log_container_operation create_start alice train._.1001 1.0 pending "pytorch 2.4"
#
# Adds one line to the operations log, in the format of ds01d, and sends it to syslog (tag
# ds01-container). It never makes its caller fail, with any shell options of the caller, and defines
# only functions. It reads no input and prints nothing.
#
# The log is DS01_OPERATIONS_LOG, else logs.operations in the configuration (DS01D_CONFIG, else
# /etc/ds01/ds01d.toml), else /var/log/ds01/container-operations.log. Its directory has to exist.

# log_container_operation OPERATION USER CONTAINER GPU STATUS DETAILS
log_container_operation() {
    # The subshell changes no variable, option or trap of the caller; || disables the caller's errexit.
    (_ds01_log "${1-}" "${2-}" "${3-}" "${4-}" "${5-}" "${6-}") </dev/null >/dev/null 2>&1 || :
    return 0
}

_ds01_log() {
    command unset TZ || : # the log has times in the host's zone, not in the user's
    _ds01_escape "$1"
    line=$escaped
    shift
    for field; do
        _ds01_escape "$field"
        line=$line'|'$escaped
    done
    _ds01_find_log
    line="$(command date '+%Y-%m-%d %H:%M:%S')|$line"
    _ds01_append "$log" "$line" || :
    if command -v logger; then
        command timeout 5 logger -t ds01-container -- "$line" || : # a hanging syslog must not block the caller
    fi
}

# dd collects the whole line and makes one write, so that lines of several writers never mix. It does not
# follow a symbolic link. If the last line has no line end, one is added first. If another writer is just
# completing that line, the result is an empty line, which readers skip.
_ds01_append() {
    [ -f "$1" ] || [ ! -e "$1" ] || return 1
    start=
    if [ -n "$(command tail -c 1 -- "$1")" ]; then
        start='
'
    fi
    new=
    [ -e "$1" ] || new=yes
    printf '%s%s\n' "$start" "$2" |
        command dd of="$1" oflag=append,nofollow,nonblock conv=notrunc "obs=$((4 * ${#2} + 2))"
    [ -z "$new" ] || _ds01_chown "$1"
}

# Give a log that root created to the owner of its directory, ds01d, which could not append otherwise.
# Only where no other user can replace the file in the meantime.
_ds01_chown() {
    case $(command stat --format=%A "${1%/*}") in
    d????-??-*) command chown --no-dereference --reference="${1%/*}" -- "$1" || : ;;
    esac
}

_ds01_find_log() {
    log=${DS01_OPERATIONS_LOG-}
    if [ -z "$log" ]; then
        log=$(_ds01_configured "${DS01D_CONFIG:-/etc/ds01/ds01d.toml}")
    fi
    case $log in
    /*) ;;
    *) log=/var/log/ds01/container-operations.log ;;
    esac
}

# Print the value of `operations` in the table [logs]; parses common TOML only.
_ds01_configured() {
    [ -r "$1" ] || return 0
    table=
    while IFS= read -r text || [ -n "$text" ]; do
        text=${text#"${text%%[![:space:]]*}"}
        case $text in
        '['*)
            table=${text#'['}
            table=${table%%']'*}
            table=$(printf '%s' "$table" | command tr -d ' \t').
            ;;
        *=*)
            key=${text%%=*}
            key=$table${key%"${key##*[![:space:]]}"}
            value=${text#*=}
            value=${value#"${value%%[![:space:]]*}"}
            [ "$key" = logs.operations ] || continue
            case $value in
            \"*) value=${value#\"} && printf '%s\n' "${value%%\"*}" ;;
            \'*) value=${value#\'} && printf '%s\n' "${value%%\'*}" ;;
            esac
            return 0
            ;;
        esac
    done <"$1"
}

# Escape a field for one line with separators, and store it in `escaped`. Plain text needs no awk.
_ds01_escape() {
    case $1 in
    *[!ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789\ ._:/@,=+%#\(\)-]*)
        # The dot protects trailing line ends, which $(...) and awk would drop.
        escaped=$(printf '%s.' "$1" | LC_ALL=C command awk "$_ds01_escaping")
        ;;
    *) escaped=$1 ;;
    esac
}

# As `escape` in ds01d: \\ \n \r \t, \xNN, \uNNNN and \UNNNNNNNN, for the separator and for everything
# that is not printable; an invalid UTF-8 byte becomes its Python surrogate. Works on bytes, in any awk.
# shellcheck disable=SC2016 # the dollar signs belong to awk
_ds01_escaping='
BEGIN { for (i = 1; i < 256; i++) number[sprintf("%c", i)] = i }
{ if (NR > 1) { escape_line(line); printf "%s", "\\n" } line = $0 }
END { escape_line(substr(line, 1, length(line) - 1)) }

function escape_line(text,    at, size, first, more, i, next_byte, point) {
    size = length(text)
    for (at = 1; at <= size; at++) {
        first = number[substr(text, at, 1)]
        if (first < 128) {
            escape_ascii(first, substr(text, at, 1))
            continue
        }
        more = first < 194 || first > 244 ? 0 : first < 224 ? 1 : first < 240 ? 2 : 3
        point = more == 1 ? first - 192 : more == 2 ? first - 224 : first - 240
        for (i = 1; i <= more; i++) {
            next_byte = at + i > size ? 0 : number[substr(text, at + i, 1)]
            if (next_byte < 128 || next_byte > 191) more = 0
            point = point * 64 + next_byte - 128
        }
        if (more == 2 && (point < 2048 || point >= 55296 && point < 57344)) more = 0
        if (more == 3 && (point < 65536 || point > 1114111)) more = 0
        if (!more) { printf "\\udc%02x", first; continue }
        if (printable(point)) printf "%s", substr(text, at, more + 1)
        else printf(point < 256 ? "\\x%02x" : point < 65536 ? "\\u%04x" : "\\U%08x", point)
        at += more
    }
}

function escape_ascii(code, character) {
    if (code == 92) printf "%s", "\\\\"
    else if (code == 9) printf "%s", "\\t"
    else if (code == 13) printf "%s", "\\r"
    else if (code < 32 || code == 124 || code == 127) printf "\\x%02x", code
    else printf "%s", character
}

# False for controls, format characters, separators and private use; unassigned code points are printable.
function printable(point) {
    if (point < 161 || point == 173) return 0
    if (point < 1536) return 1
    if (point < 8192) return !(point < 1542 || point == 1564 || point == 1757 || point == 1807 ||
        point == 2192 || point == 2193 || point == 2274 || point == 5760 || point == 6158)
    if (point < 12289) return !(point < 8208 || point > 8231 && point < 8240 ||
        point > 8286 && point < 8304 || point == 12288)
    if (point < 65536) return !(point > 57343 && point < 63744 || point > 64975 && point < 65008 ||
        point == 65279 || point > 65519 && point < 65532 || point > 65533)
    return !(point == 69821 || point == 69837 || point > 78895 && point < 78912 ||
        point > 113823 && point < 113828 || point > 119154 && point < 119163 ||
        point > 917503 && point < 917760 || point >= 983040 || point % 65536 > 65533)
}'
