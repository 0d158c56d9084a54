"""`container-enter` and `container-logs`: what happens in a container."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import ExitCodeCommand, common_options
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_since
from ds01d.cli.containers import terminal
from ds01d.cli.containers.direct import find_remote
from ds01d.cli.containers.selection import Selection, select_names, show_intention
from ds01d.containers.listing import list_names
from ds01d.containers.names import check_owner, resolve_name
from ds01d.containers.sessions import (
    SHELL,
    ContainerSessions,
    Entered,
    RemoteSessions,
    Sessions,
)
from ds01d.errors import Ds01Error, Interrupted
from ds01d.model.containers import State
from ds01d.model.primitives import Wall
from ds01d.model.session import LogsOrder, SessionOrder, TerminalSize
from ds01d.service.exchange import ServiceUnanswered, ServiceUnreachable

_HELP = {"help_option_names": ["-h", "--help"]}
_PASS_OPTIONS = {**_HELP, "allow_interspersed_args": False}


@click.command("container-enter", cls=ExitCodeCommand, context_settings=_PASS_OPTIONS)
@common_options
@click.option(
    "-e", "--env", "environment", multiple=True, metavar="NAME=VALUE", help="May be repeated."
)
@click.option("--guided", is_flag=True, help="Explain it, and ask for the name.")
@click.option("--dry-run", is_flag=True, help="Show what would be run.")
@click.argument("name", required=False, shell_complete=completion.own_running)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def enter(
    invocation: Invocation,
    *,
    name: str | None,
    command: tuple[str, ...],
    environment: tuple[str, ...],
    guided: bool,
    dry_run: bool,
) -> int:
    """Run COMMAND in a container that runs; by default a shell.

    It gets this terminal, or what stdin and stdout are; Ctrl-C is the command's. `exit` leaves the
    container running.

    Exit code: that of the command, 126 or 127 if it cannot be run; 1 if its code is unknown.
    """
    has_terminal = terminal.has_terminal()
    order = SessionOrder(
        command=command or SHELL,
        environment=(*_terminal_environment(has_terminal=has_terminal), *environment),
        size=terminal.read_size() if has_terminal else None,
    )
    selection = Selection(
        verb="enter", name=name, guided=guided, accepts=lambda state: state is State.RUNNING
    )
    (chosen,) = select_names(invocation, selection)
    if dry_run:
        return show_intention(invocation, "enter", [chosen], words=order.command)
    with _open_sessions(invocation) as sessions:
        entered = sessions.enter_container(chosen, order)

        # One thread at a time may use the sessions, and sizes are sent by a thread of their own.
        one_at_a_time = threading.Lock()

        def resize(size: TerminalSize) -> None:
            with one_at_a_time:
                sessions.resize_session(entered.name, entered.session, size)

        with entered.stream as stream:
            try:
                terminal.StreamSession(stream, resize if has_terminal else None).copy_stream()
            except Interrupted as interrupted:
                return 128 + interrupted.signal
        with one_at_a_time:
            return _find_exit_code(sessions, entered)


@click.command("container-logs", cls=ExitCodeCommand, context_settings=_HELP)
@common_options
@click.option("-f", "--follow", is_flag=True, help="Go on as it writes, until it stops or Ctrl-C.")
@click.option(
    "-n", "--tail", type=click.IntRange(0, 10**9), metavar="N", help="The last N lines [all]."
)
@click.option("--since", callback=parse_since, metavar="2d|TIME", help="Only from then on.")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line, in UTC.")
@click.option("--guided", is_flag=True, help="Explain it, and ask for the name.")
@click.argument("name", required=False, shell_complete=completion.own_containers)
@click.pass_obj
def logs(
    invocation: Invocation,
    *,
    name: str | None,
    guided: bool,
    follow: bool,
    tail: int | None,
    since: Wall | None,
    timestamps: bool,
) -> int:
    """Show what a container has written to its stdout and stderr."""
    order = LogsOrder(follow=follow, tail=tail, since=since, timestamps=timestamps)
    (chosen,) = select_names(invocation, Selection(verb="logs", name=name, guided=guided))
    with _open_sessions(invocation) as sessions:
        output = sessions.read_logs(chosen, order)
        terminal.copy_output(output.parts, has_frames=output.has_frames)
    return 0


def _terminal_environment(*, has_terminal: bool) -> tuple[str, ...]:
    kind = os.environ.get("TERM", "")
    # It becomes part of a file name of terminfo, so nothing but a plain word is passed on.
    is_usable = has_terminal and re.fullmatch(r"[A-Za-z0-9._+-]{1,64}", kind)
    return (f"TERM={kind}",) if is_usable else ()


def _find_exit_code(sessions: Sessions, entered: Entered) -> int:
    """The exit code of a command whose stream has ended. Raises `Ds01Error` if it is not known."""
    pause_s = 0.02
    while True:
        reason, patience_s = f"it still runs in {entered.name}", 2.0
        try:
            state = sessions.inspect_session(entered.name, entered.session)
            if state.exit_code is not None and not state.is_running:
                return state.exit_code
        except (ServiceUnreachable, ServiceUnanswered) as error:
            reason, patience_s = str(error), 30.0  # ds01d is restarted
        except Ds01Error as error:
            reason = str(error)
        # Docker closes the stream before it has the exit code. Each question is twice as far off:
        # how many a user may ask is limited.
        if pause_s > patience_s:
            raise Ds01Error(f"the exit code of the command is unknown: {reason}")
        time.sleep(pause_s)
        pause_s *= 2


@contextmanager
def _open_sessions(invocation: Invocation) -> Iterator[Sessions]:
    """The sessions of the caller: by ds01d, or by Docker for those who can reach it."""
    config = invocation.config()
    remote = find_remote(config, RemoteSessions)
    if remote is not None:
        yield remote
        return
    caller = invocation.environment.find_caller()
    with invocation.environment.open_container_services(config) as services:
        find_container = services.engine.find_container
        yield ContainerSessions(
            engine=services.engine,
            sessions=services.sessions,
            resolve=lambda text: resolve_name(
                text, caller, find_container, lambda: list_names(services.world)
            ),
            check_owner=lambda container: check_owner(container, caller),
        )
