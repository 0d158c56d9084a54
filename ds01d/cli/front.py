"""Where ds01ctl and ds01-allocator begin: what is called most is printed by ds01d itself.

The simple form of `status` and `user-status` is one call of the socket, made here, before anything
is imported: scripts and prompts call them all the time, and the imports take ten times as long.
Whatever is unusual (an option, a terminal, no answer, an error) goes to the command itself, which
prints the same.
"""

import os
import sys

from ds01d.cli.base.quick_socket import find_config, find_socket

_TIMEOUT_S = 1.0  # a pass may take long: the published status shows that it does

# Decision 190: whole argument lists, so that options are described in one place alone.
_STATUS_FORMS = frozenset(
    {
        "status",
        "status --json",
        "status -o json",
        "status -o wide",
        "status -o name",
        "status --free",
        "status --free -o name",
        "status --user",
    }
)


def ds01ctl() -> None:
    words = sys.argv[1:]
    form, user = " ".join(words), None
    if len(words) == 3 and words[:2] == ["status", "--user"]:
        form, user = "status --user", words[2]
    # On a terminal it has colours.
    if form in _STATUS_FORMS and not _is_terminal():
        _print_view(f"ds01ctl {form}", user)
    from ds01d.cli.ctl.main import main  # noqa: PLC0415 - only where it is needed

    main()


def ds01_allocator() -> None:
    words = sys.argv[1:]
    if words in (["status"], ["status", "--json"]):
        _print_view(f"ds01-allocator {' '.join(words)}")
    elif len(words) == 2 and words[0] == "user-status" and not words[1].startswith("-"):
        _print_view("ds01-allocator user-status", words[1])
    from ds01d.cli.allocator.main import main  # noqa: PLC0415 - only where it is needed

    main()


def _is_terminal() -> bool:
    return sys.stdout is None or sys.stdout.isatty()


def _print_view(command: str, user: str | None = None) -> None:
    """Print what ds01d answers, and exit; returns where it does not."""
    text = _ask(command, user)
    if text is None or sys.stdout is None or sys.stdout.encoding.lower() != "utf-8":
        return
    data = text.encode("utf-8", "backslashreplace")
    try:
        written = os.write(1, data)
    except OSError:
        return  # nothing is written: the command itself fails in its own words
    try:
        while written < len(data):
            written += os.write(1, data[written:])
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        os.write(2, f"{command.partition(' ')[0]}: {error}\n".encode())
        os._exit(1)
    os._exit(0)  # nothing is left to be flushed, and taking down an interpreter takes a while


def _ask(command: str, user: str | None) -> str | None:
    config = find_config()
    path = find_socket(config)
    if not path:
        return None
    import _socket  # noqa: PLC0415 - `socket` takes four times as long
    import json  # noqa: PLC0415 - only where it is needed

    parameters = {"command": command, "config": config, "user": user}
    call = {"method": "io.github.ds01.Booking.Show", "parameters": parameters}
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(path)
        # As short as it is, it fits into the buffer of a new connection as a whole.
        connection.send(json.dumps(call).encode() + b"\0")
        parts = [connection.recv(1 << 18)]
        while parts[-1] and not parts[-1].endswith(b"\0"):
            parts.append(connection.recv(1 << 18))
        reply = json.loads(b"".join(parts)[:-1])
    except (OSError, ValueError):
        return None
    text = reply.get("parameters", {}).get("output")
    return text if isinstance(text, str) else None
