"""Asks every host for its published status, all at once within bounds, in one call each.

`cat` of a file that everybody may read is the whole protocol: no agent, no port, no right of its
own on the other host. The answer carries that host's clock, so ages need no common time.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ds01d.adapters.fleet.ssh_process import (
    MAX_ERROR_BYTES,
    SSH_FAILED,
    SshProcess,
    build_command,
    find_control_folder,
)
from ds01d.adapters.fleet.status_format import MAX_REASON, parse_origin, parse_status
from ds01d.errors import Ds01Error, Malformed
from ds01d.model.fleet import HostAnswer, HostFailure, HostName
from ds01d.model.primitives import Wall

DEADLINE_S: Final = 5.0
"""For all hosts together: what has not answered by then is unknown."""
MOST_CONNECTIONS: Final = 6
"""At once. sshd refuses at random from ten unauthenticated ones on (MaxStartups 10:30:100), which
they all count against behind one jump host."""
MAX_STATUS_BYTES: Final = 8 << 20
_RUNTIME_STATUS: Final = "/run/ds01d/status.json"
_RETRY_PAUSE_S: Final = 0.2
# With less time left another login would not be over.
_LEAST_RETRY_S: Final = 1.0
# Eleven digits are the year 5138, as of all times of a status: an age by a later one is of no use.
_CLOCK: Final = re.compile(rb"[0-9]{1,11}")


class _TooMuch(Exception):
    """A host sent more than a status can be."""


class _Bounded:
    """Output, up to `limit` bytes; beyond them `_TooMuch`, or with `drops` nothing more."""

    def __init__(self, limit: int, *, drops: bool = False) -> None:
        self._limit, self._drops = limit, drops
        self.data = bytearray()

    def receive(self, piece: bytes) -> None:
        room = self._limit - len(self.data)
        if len(piece) > room and not self._drops:
            raise _TooMuch
        self.data += piece[:room]


class FleetLook:
    """Asks hosts for what they published. `state_dir`: of ds01d, the same on all of them."""

    def __init__(self, state_dir: Path, environ: Mapping[str, str]) -> None:
        self._state_dir = state_dir
        self._environ = environ
        # Decision 356: of hosts that answer with all that is read only one is taken apart at once.
        self._parsing = threading.Lock()

    def ask_hosts(
        self, hosts: Sequence[HostName], deadline_s: float = DEADLINE_S
    ) -> dict[HostName, HostAnswer | HostFailure]:
        """The answer of each, in the order of `hosts`, which is that of asking them."""
        deadline = time.monotonic() + deadline_s
        control = find_control_folder(self._environ)
        # Threads, since each only waits for an ssh of its own.
        with ThreadPoolExecutor(MOST_CONNECTIONS, "fleet") as threads:
            asked = {
                name: threads.submit(self._ask_host, name, control, deadline) for name in hosts
            }
            return {name: future.result() for name, future in asked.items()}

    def _ask_host(
        self, name: HostName, control: Path | None, deadline: float
    ) -> HostAnswer | HostFailure:
        if time.monotonic() >= deadline:
            return HostFailure(reason=f"not asked in time: {MOST_CONNECTIONS} others were slow")
        try:
            answer, may_retry = self._ask_once(name, control, deadline)
            # A master that has just ended, a connection refused by MaxStartups (ansible 16731).
            if may_retry and time.monotonic() + _LEAST_RETRY_S < deadline:
                time.sleep(_RETRY_PAUSE_S)
                answer, _ = self._ask_once(name, None, deadline)
            return answer
        except Ds01Error as error:
            return HostFailure(reason=str(error))
        except _TooMuch:
            return HostFailure(reason=f"more than {MAX_STATUS_BYTES >> 20} MiB of answer")

    def _ask_once(
        self, name: HostName, control: Path | None, deadline: float
    ) -> tuple[HostAnswer | HostFailure, bool]:
        """The answer, or why there is none; and whether another try may get one."""
        mark = secrets.token_hex(16)
        # Longer than the status itself: what a login shell prints comes before it.
        output, errors = _Bounded(2 * MAX_STATUS_BYTES), _Bounded(MAX_ERROR_BYTES, drops=True)
        # Decision 295: a shared connection whose host is gone must end before the next call.
        command = build_command(
            name, self._build_remote(mark), control=control, alive_s=3, alive_count=2
        )
        with SshProcess(command, on_output=output.receive, on_error=errors.receive) as process:
            status = process.follow(deadline)
        if status is None:
            return HostFailure(reason=f"no answer within {DEADLINE_S:g} s"), False
        with self._parsing:
            parts = output.data.split(f"\n{mark} ".encode())
            # The thread of a large answer waits for no other with it.
            output.data.clear()
            if parts[-1].strip() == b"end" and len(parts) == 4:
                return self._parse_answer(parts[1], parts[2], errors), False
        reason = last_line(errors.data).removeprefix("ssh: ") or f"exit status {status}"
        return HostFailure(reason=f"ssh: {reason}"), status == SSH_FAILED

    def _build_remote(self, mark: str) -> str:
        """What the login shell there runs, whichever that is: one word in single quotes for sh.

        The clock comes before the status: a status is never younger than that.
        """
        status = shlex.quote(str(self._state_dir / "status.json"))
        limit = MAX_STATUS_BYTES
        script = (
            f'printf "\\n%s %s\\n" {mark} "$(date +%s)"; head -c {limit} {status};'
            f' printf "\\n%s \\n" {mark}; head -c {limit} {_RUNTIME_STATUS} 2>/dev/null;'
            f' printf "\\n%s end\\n" {mark}'
        )
        return f"exec sh -c {shlex.quote(script)}"

    def _parse_answer(
        self, first: bytes | bytearray, second: bytes | bytearray, errors: _Bounded
    ) -> HostAnswer | HostFailure:
        clock, _, data = first.partition(b"\n")
        if not _CLOCK.fullmatch(clock):
            return HostFailure(reason="its clock cannot be read")
        if not data.strip() and not second.strip():
            reason = last_line(errors.data)
            return HostFailure(reason=f"no status of ds01d there{f': {reason}' if reason else ''}")
        try:
            status = parse_status(self._choose_newer(data, second))
        except Malformed as error:
            return HostFailure(reason=str(error))
        return HostAnswer(status=status, clock=Wall(float(clock)))

    def _choose_newer(
        self, data: bytes | bytearray, fallback: bytes | bytearray
    ) -> bytes | bytearray:
        # Decision 100: the runtime folder has it while the state folder cannot be written.
        if fallback.strip():
            other = parse_origin(fallback)
            # Both may be there, from before and after the state folder could be written again.
            if other.state_dir == os.fspath(self._state_dir) and (
                not data.strip() or other.written_at > parse_origin(data).written_at
            ):
                return fallback
        return data


def last_line(data: bytes | bytearray) -> str:
    """The last line with something in it, as text for people; not yet escaped."""
    lines = [line.strip() for line in bytes(data).decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:MAX_REASON]
