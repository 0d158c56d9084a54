"""The socket of the service by a look at the configuration, where that is enough.

Parsing it takes as long as three interpreters that do nothing. What is not plain (a mode, a table
in another form, root's rights for another user) is left to `config_file`.
"""

import os

DEFAULT_CONFIG = "/etc/ds01/ds01d.toml"
_DEFAULT_SOCKET = "/run/ds01d/booking.sock"
_BEHIND_ROOT = ("SUDO_UID", "PKEXEC_UID", "DOAS_USER")
_MOST_BYTES = 1 << 16


def find_config() -> str:
    """The configuration of commands without --config."""
    named = os.environ.get("DS01D_CONFIG") or DEFAULT_CONFIG
    return os.path.abspath(named)  # noqa: PTH100 - pathlib is slow to load


def find_socket(config: str) -> str:
    """service.socket of a configuration in mode repair; "" where it takes a parser to say."""
    # Decision 115: root must not follow a configuration that a user could have written.
    if os.geteuid() == 0 and (os.getuid() or any(name in os.environ for name in _BEHIND_ROOT)):
        return ""
    try:
        # O_NONBLOCK: a FIFO in its place would wait for a writer.
        descriptor = os.open(config, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return _DEFAULT_SOCKET if config == DEFAULT_CONFIG else ""
    except OSError:
        return ""
    try:
        text = os.read(descriptor, _MOST_BYTES).decode()
    except (OSError, ValueError):
        return ""
    finally:
        os.close(descriptor)
    # Cut off, or with a string over several lines, in which anything may stand.
    if len(text) >= _MOST_BYTES or '"""' in text or "'''" in text:
        return ""
    return _scan_lines(text)


def _scan_lines(text: str) -> str:
    table, path = "", _DEFAULT_SOCKET
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("#")[0].partition("="))
        if key.startswith("["):
            table = key
        elif key == "mode" and value != '"repair"':
            return ""
        elif key == "socket" and table == "[service]":
            path = value[1:-1]
            if value != f'"{path}"' or '"' in path or "\\" in path:
                return ""
        # The same key in another form (dotted, quoted, inline) takes a parser.
        elif "service" in key or "socket" in key or "daemon" in key:
            return ""
    return path
