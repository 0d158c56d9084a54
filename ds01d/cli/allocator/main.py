"""`ds01-allocator`: the drop-in for the allocator that scripts call. Its lines and codes stay.

A refusal is a line and exit code 0, as scripts expect it; a wrong call and whatever keeps it from
an answer is a line on stderr and 1. `ds01ctl allocate` and `release` say the same with exit codes.
It is started for every line of somebody's script, so it has no option parser of its own to load,
and each command imports what it needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NoReturn

from ds01d.cli.allocator.call import NAME, Call, UsageError, print_warnings, write_lines
from ds01d.cli.base import process
from ds01d.cli.base.quick_socket import find_config, find_socket
from ds01d.errors import Ds01Error

if TYPE_CHECKING:
    from pathlib import Path

    from ds01d.config import Config
    from ds01d.service.allocator_client import SlotAllocator

USAGE = """\
Usage: ds01-allocator [--config FILE] COMMAND [ARGUMENT...]

  status                                      slots and who holds them
  allocate USER CONTAINER MAX_GPUS PRIORITY   book a slot for a container
  release CONTAINER                           give back what a container holds
  mark-stopped CONTAINER                      start the hold of a stopped container
  release-stale [USER]                        release what is provably stale
  user-status USER                            what a user holds
  user-count USER                             how many slots a user holds
  sync                                        bring the slots in line with the GPUs, and book
                                              running containers without a booking

A refusal is an answer: exit code 0. 1 means a wrong call, or that something is broken.
Configuration: --config, else DS01D_CONFIG, else /etc/ds01/ds01d.toml.
"""


_ARGUMENTS = {  # how many, at least and at most
    "status": (0, 0),
    "allocate": (4, 4),
    "release": (1, 1),
    "mark-stopped": (1, 1),
    "release-stale": (0, 1),
    "user-status": (1, 1),
    "user-count": (1, 1),
    "sync": (0, 0),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run, and exit. Whatever went wrong is one line a problem on stderr."""
    process.prepare_streams()
    # The lines contain ✓ and →, which a script with LANG=C must get unchanged.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _run_command(sys.argv[1:] if arguments is None else arguments)
    # The reader is gone: there is nowhere to report it.
    except BrokenPipeError:
        code = 1
    except KeyboardInterrupt:
        code = 130
    except (Ds01Error, OSError) as error:
        code = 1
        print_warnings(str(error).splitlines())
    finally:
        complete = process.flush_streams()
    sys.exit(code if complete else code or 1)


def _run_command(words: Sequence[str]) -> int:
    if not words:
        raise UsageError("missing command (see --help)")
    # Anywhere in the call, as the script that it replaces has it.
    if "-h" in words or "--help" in words:
        write_lines(USAGE.splitlines())
        return 0
    if "--version" in words:
        from ds01d import __version__  # noqa: PLC0415

        write_lines([f"{NAME} {__version__}"])
        return 0
    # Parsed before any heavy import, so that a wrong call fails fast.
    call = _parse_call(words)
    if call.command not in _ARGUMENTS:
        raise UsageError(f"unknown command {call.command!r} (see --help)")
    least, most = _ARGUMENTS[call.command]
    # Before the configuration is read: a wrong call fails the same way on any host.
    if not least <= len(call.arguments) <= most:
        line = next(usage for usage in USAGE.splitlines() if usage.split()[:1] == [call.command])
        raise UsageError(f"wrong number of arguments; expected {NAME} {line[:44].strip()}")
    if call.command in ("allocate", "release", "mark-stopped"):
        from ds01d.cli.allocator import bookings  # noqa: PLC0415 - a wrong call needs none of it

        with _open_allocator(call) as allocator:
            write_lines(bookings.HANDLERS[call.command](allocator, call))
    else:
        from ds01d.cli.allocator import handlers  # noqa: PLC0415 - as above

        write_lines(handlers.HANDLERS[call.command](_load_config(call), call))
    return 0


def _open_allocator(call: Call) -> AbstractContextManager[SlotAllocator]:
    """That of ds01d, without reading the configuration if a look at it shows where that listens."""
    socket = "" if call.config_file else find_socket(find_config())
    if socket:
        from ds01d.service.allocator_client import RemoteAllocator  # noqa: PLC0415
        from ds01d.service.client import find_service  # noqa: PLC0415

        service = find_service(socket, RemoteAllocator)
        if service is not None:
            return nullcontext(service)
    from ds01d.bootstrap_books import open_allocator  # noqa: PLC0415 - where it has to be

    return open_allocator(_load_config(call))


def _load_config(call: Call) -> Config:
    from ds01d.config_file import find_named_file, load_config  # noqa: PLC0415

    # decision 115: root must not follow a configuration that a user could have written.
    if os.geteuid() == 0 and (file := find_named_file(call.config_file, os.environ)) is not None:
        from ds01d.adapters.host.privileges import require_of_root  # noqa: PLC0415

        require_of_root(file, os.environ)
    return load_config(call.config_file, os.environ)


def _parse_call(words: Sequence[str]) -> Call:
    """Options may stand anywhere; what follows `--` is none."""
    left, plain = list(words), []
    config_file, as_json = None, False
    while left:
        word = left.pop(0)
        if word == "--":
            plain += left
            break
        if word == "--json":
            as_json = True
        elif word == "--config":
            if not left:
                raise UsageError("--config needs a file")
            config_file = _as_path(left.pop(0))
        elif word.startswith("--config="):
            config_file = _as_path(word.removeprefix("--config="))
        elif word.startswith("--"):
            raise UsageError(f"unknown option {word.partition('=')[0]} (see --help)")
        else:
            plain.append(word)
    if not plain:
        raise UsageError("missing command (see --help)")
    return Call(plain[0], tuple(plain[1:]), config_file, as_json)


def _as_path(text: str) -> Path:
    from pathlib import Path  # noqa: PLC0415 - few commands need it

    return Path(text)


if __name__ == "__main__":
    main()
