"""Runs a command on another host and finds out how it ended: finished, never begun, or uncertain.

A connection can be lost at any moment, and ssh exits with 255 for all. So the other end waits for
a word from here before it begins: as long as that word was not given, nothing has happened there,
and once it was, only the command's own result proves how it ended.
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ds01d.adapters.fleet.look import last_line
from ds01d.adapters.fleet.ssh_process import (
    MAX_ERROR_BYTES,
    SshProcess,
    build_command,
)
from ds01d.model.fleet import HostName, RemoteEnd, RemoteResult

READY_S: Final = 10.0
"""From the start of ssh until the other end is ready to begin."""
MAX_RESULT_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 4096
# Of commands that failed by themselves, and of a shell that found no such command.
_NOTHING_DONE: Final = frozenset({1, 2, 3, 126, 127})


class RemoteRun:
    """One run of `words` on `host`. `show`: gets each line that it writes to stderr."""

    def __init__(self, host: HostName, words: Sequence[str], show: Callable[[str], None]) -> None:
        self._host, self._show = host, show
        self._mark = secrets.token_hex(16)
        self._words = words
        self._output = bytearray()
        self._errors = bytearray()
        self._line = bytearray()
        self._is_begun = False

    @property
    def is_begun(self) -> bool:
        """Whether the other end was given the word to begin."""
        return self._is_begun

    def run(self, limit_s: float | None = None) -> RemoteResult:
        """Run it to its end. `limit_s`: how long that may take; None: as long as it wants.

        Raises `Ds01Error` where ssh cannot be started.
        """
        # Not over a shared connection: that of an earlier call may be as good as dead.
        command = build_command(
            self._host, self._build_remote(), control=None, alive_s=15, alive_count=4
        )
        ready_by = time.monotonic() + READY_S
        ends_by = None if limit_s is None else time.monotonic() + limit_s
        with SshProcess(
            command, on_output=self._receive, on_error=self._receive_error, takes_input=True
        ) as process:
            status = process.follow(ready_by, self._is_ready)
            if status is not None:
                return self._make_not_started(f"exit status {status}")
            if not self._is_ready():
                return self._make_not_started(f"no answer within {READY_S:g} s")
            self._is_begun = True
            process.send(f"{self._mark}\n".encode())
            status = process.follow(ends_by)
        self._flush_line()
        return self._make_result(status)

    def _build_remote(self) -> str:
        # `read` takes the word byte by byte (POSIX), so nothing behind it is lost. 75 is
        # EX_TEMPFAIL of sysexits.h, which no command of ours ends with: nothing was done.
        script = (
            f"printf '\\n%s ready\\n' {self._mark}; read -r word;"
            f' [ "$word" = {self._mark} ] || exit 75; exec </dev/null;'
            f" exec {shlex.join(self._words)}"
        )
        return f"exec sh -c {shlex.quote(script)}"

    def _is_ready(self) -> bool:
        return f"\n{self._mark} ready\n".encode() in self._output

    def _receive(self, piece: bytes) -> None:
        # The first part: a result is short, and comes before whatever else there is.
        self._output += piece[: MAX_RESULT_BYTES - len(self._output)]

    def _receive_error(self, piece: bytes) -> None:
        self._errors = (self._errors + piece)[-MAX_ERROR_BYTES:]
        *lines, rest = bytes(self._line + piece).split(b"\n")
        for line in lines:
            self._show_line(line)
        self._line = bytearray(rest[:_MAX_LINE_BYTES])

    def _show_line(self, line: bytes) -> None:
        if line.strip() and self._is_begun:
            self._show(line[:_MAX_LINE_BYTES].decode(errors="replace").rstrip())

    def _flush_line(self) -> None:
        self._show_line(bytes(self._line))
        self._line.clear()

    def _make_not_started(self, otherwise: str) -> RemoteResult:
        return RemoteResult(end=RemoteEnd.NOT_STARTED, reason=last_line(self._errors) or otherwise)

    def _make_result(self, status: int | None) -> RemoteResult:
        document = self._parse_document()
        reason = last_line(self._errors)
        # Anything else may be of a command that was killed in the middle of its work.
        if document is None and status not in _NOTHING_DONE:
            return RemoteResult(end=RemoteEnd.UNCERTAIN, reason=reason or "no result came")
        return RemoteResult(
            end=RemoteEnd.FINISHED, status=status or 0, document=document, reason=reason
        )

    def _parse_document(self) -> Mapping[str, object] | None:
        _, _, text = bytes(self._output).partition(f"\n{self._mark} ready\n".encode())
        try:
            return msgspec.json.decode(text, type=dict[str, object])
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
