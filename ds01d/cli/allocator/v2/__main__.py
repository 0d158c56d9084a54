"""`gpu_allocator_v2.py`: the allocator that a lab's scripts call by its path, over ds01d's socket.

Its commands, lines, streams and exit codes are those of the original: 0 done, 1 refused or failed,
2 a wrong call. What a caller is given is reserved until its container exists, for as long as the
process runs that asked.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from ds01d.cli.allocator.call import write_lines
from ds01d.cli.allocator.v2 import lines, reasons
from ds01d.cli.allocator.v2.command_line import PROGRAM, build_parser
from ds01d.cli.base import process
from ds01d.cli.base.delivery import release_if_undelivered
from ds01d.cli.base.quick_socket import find_config, find_socket
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, NotAllocated, Refusal, Rejected
from ds01d.model.primitives import ContainerName, UserName
from ds01d.service.allocator_client import RemoteAllocator
from ds01d.service.client import NOT_POSSIBLE
from ds01d.service.exchange import ServiceRefused, ServiceUnreachable

_MOST_SLOTS: Final = 1024  # of one call, as the service takes it
_MOST: Final = 2**31 - 1


def main() -> NoReturn:
    process.prepare_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    parser = build_parser()
    try:
        arguments = parser.parse_args()
        if arguments.command is None:
            parser.print_help()
            code = 1
        else:
            code = _COMMANDS[arguments.command](arguments)
    except BrokenPipeError:
        code = 1
    except KeyboardInterrupt:
        code = 130
    except (Ds01Error, OSError) as error:
        _print_error(str(error))
        code = 1
    finally:
        complete = process.flush_streams()
    sys.exit(code if complete else code or 1)


# --- the commands


def _allocate(arguments: argparse.Namespace) -> int:
    user, container = UserName(arguments.user), ContainerName(arguments.container)

    def ask(service: RemoteAllocator) -> Allocated | Rejected:
        # Only to lower what the limits give: an operator's number would raise it.
        quota = service.call("Quota", {"user": user})["quota"]
        limits = (quota["max_slots"], quota["max_gpus"])
        is_less = all(limit is None or arguments.max_gpus <= limit for limit in limits)
        most = max(-_MOST, min(arguments.max_gpus, _MOST)) if is_less else None
        return service.allocate(user, container, most, for_process=True)

    return _reserve(arguments.command, ask, lines.allocate_lines, _print_refusal)


def _allocate_multi(arguments: argparse.Namespace) -> int:
    user, container = UserName(arguments.user), ContainerName(arguments.container)
    wanted = arguments.num_gpus
    if wanted <= 0:
        return _print_refusal("NO_GPU_AVAILABLE")

    def ask(service: RemoteAllocator) -> Allocated | Rejected:
        def allocate(count: int) -> Allocated | Rejected:
            reason = arguments.container_type
            return service.allocate(user, container, count=count, reason=reason, for_process=True)

        answer = allocate(min(wanted, _MOST_SLOTS))
        # It has some: then that is the answer, whatever was asked for.
        is_fewer = isinstance(answer, Rejected) and answer.refusal is Refusal.FEWER_SLOTS_BOOKED
        return allocate(1) if is_fewer else answer

    return _reserve(arguments.command, ask, lines.allocate_multi_lines, _print_refusal, wanted)


def _allocate_external(arguments: argparse.Namespace) -> int:
    def ask(service: RemoteAllocator) -> Allocated | Rejected:
        # Decision 231: without a name the container that comes is recognized by its device.
        user, reason = UserName(arguments.user), arguments.container_type
        return service.allocate(user, None, reason=reason, for_process=True)

    return _reserve(arguments.command, ask, lines.allocate_external_lines, _print_external_refusal)


def _reserve(
    command: str,
    ask: Callable[[RemoteAllocator], Allocated | Rejected],
    describe: Callable[[Allocated], Iterable[str]],
    refuse: Callable[[str], int],
    count: int = 1,
) -> int:
    """Ask for slots and print the answer, a failure as a refusal; gives the exit code."""
    try:
        service = _find_service()
        answer = ask(service)
    except Ds01Error as error:
        return refuse(reasons.describe_error(error, command))
    if isinstance(answer, Rejected):
        code = refuse(reasons.describe_rejection(answer, command, count))
        # Decision 229: callers read both streams as one, and show what is in parentheses first.
        if answer.holdings:
            _print_error(answer.holdings)
        return code
    # A caller without an answer assumes that nothing was reserved.
    with release_if_undelivered(service, answer):
        write_lines(describe(answer))
    return 0


def _print_refusal(reason: str) -> int:
    write_lines([f"✗ Allocation failed: {reason}"])
    return 1


def _print_external_refusal(reason: str) -> int:
    status = "QUOTA_EXCEEDED" if reason.startswith("QUOTA_EXCEEDED") else "FAILED"
    write_lines([f"STATUS={status}", f"REASON={reason}"])
    return 1


def _release(arguments: argparse.Namespace) -> int:
    service, container = _find_service(), ContainerName(arguments.container)
    try:
        answer = service.release(container)
        slots = [] if isinstance(answer, NotAllocated) else list(answer.slots)
    except ServiceRefused as refusal:
        # Its container exists: only its removal gives the GPU back, and the answer is as ever.
        if refusal.parameters.get("code") != NOT_POSSIBLE:
            raise
        slots = [
            slot["id"]
            for slot in _read_slots(service)
            if any(holder["container"] == container for holder in slot["holders"])
        ]
    name = str(container)
    if slots:
        write_lines([f"✓ Released GPU/MIG {','.join(slots)} from {name}"])
    else:
        write_lines([f"✗ No GPU allocated to {name}"])
    return 0


def _release_stale(_: argparse.Namespace) -> int:
    # ds01d frees what nobody has any more; it removes no container.
    write_lines(["✓ No stale containers found"])
    return 0


def _show_status(_: argparse.Namespace) -> int:
    write_lines(lines.status_lines(_read_slots(_find_service())))
    return 0


def _count_containers(arguments: argparse.Namespace) -> int:
    holders = (holder for slot in _read_slots(_find_service()) for holder in slot["holders"])
    names = {holder["container"] for holder in holders if holder["user"] == arguments.user}
    write_lines([str(len(names))])
    return 0


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "allocate": _allocate,
    "allocate-multi": _allocate_multi,
    "allocate-external": _allocate_external,
    "release": _release,
    "release-stale": _release_stale,
    "status": _show_status,
    "user-count": _count_containers,
}


# --- the service


def _find_service() -> RemoteAllocator:
    path = find_socket(find_config()) or _read_socket()
    if not path:
        raise ServiceUnreachable("service.socket is empty: ds01d takes no bookings")
    return RemoteAllocator(Path(path))


def _read_socket() -> str:
    """That of a configuration which takes a parser to read."""
    from ds01d.config_file import find_named_file, load_config  # noqa: PLC0415 - rarely needed

    # decision 115: root must not follow a configuration that a user could have written.
    if os.geteuid() == 0 and (file := find_named_file(None, os.environ)) is not None:
        from ds01d.adapters.host.privileges import require_of_root  # noqa: PLC0415 - as above

        require_of_root(file, os.environ)
    return str(load_config(None, os.environ).service.path or "")


def _read_slots(service: RemoteAllocator) -> list[Mapping[str, Any]]:
    slots: list[Mapping[str, Any]] = service.call("Status", {})["status"]["slots"]
    return slots


def _print_error(text: str) -> None:
    with suppress(OSError):
        # Callers read both streams as one.
        sys.stderr.write(f"{PROGRAM}: {reasons.remove_tokens(text)}\n")


if __name__ == "__main__":
    main()
