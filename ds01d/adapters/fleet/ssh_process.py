"""One run of OpenSSH's client: its options, and its output, bounded in size and in time.

The other end is not trusted: it may send no end of output, none at all, or anything. The end of the
process counts, not that of its output: with ControlPersist a master goes on in the background,
and holds stderr for as long as it lives (ansible 18225, OpenSSH bug 1988).
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from ds01d.errors import Ds01Error
from ds01d.folders import make_folder
from ds01d.model.fleet import HostName

CONNECT_TIMEOUT_S: Final = 5
SSH_FAILED: Final = 255
"""ssh's own exit status; a remote command may end with it too (ansible 80335)."""
MAX_ERROR_BYTES: Final = 64 << 10
# Looks come in rows: for a minute the next one needs no login, then the master ends by itself.
_PERSIST_S: Final = 60
# Longest path of a control socket: sockaddr_un, less "/", 40 signs of %C and 17 of a suffix.
_MAX_CONTROL_FOLDER: Final = 107 - 58
_READ_BYTES: Final = 1 << 16
_END_S: Final = 1.0
# Nothing is asked, forwarded or run besides, whatever a user's ssh_config has for this host.
_OPTIONS: Final = (
    *("-T", "-a", "-x"),
    *("-o", "BatchMode=yes"),
    *("-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"),
    *("-o", "ConnectionAttempts=1"),
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none"),
    *("-o", "EscapeChar=none"),
    *("-o", "LogLevel=ERROR"),
)
_ALONE: Final = ("-o", "ControlMaster=no", "-o", "ControlPath=none")


def find_control_folder(environ: Mapping[str, str]) -> Path | None:
    """Where connections are kept open between calls; None where there is no place for that."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(base) or len(os.fsencode(base)) > _MAX_CONTROL_FOLDER - 6:  # noqa: PTH117
        return None
    folder = Path(base) / "ds01d"
    try:
        make_folder(folder, 0o700)
        status = os.lstat(folder)
    except OSError:
        return None
    # Who can write there could answer in the place of the host.
    is_private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return folder if is_private else None


def build_command(
    host: HostName, remote: str, *, control: Path | None, alive_s: int, alive_count: int
) -> list[str]:
    """The command line of ssh. `remote`: for the login shell there, quoted already.

    A connection without a sign of life for `alive_count` times `alive_s` seconds counts as lost.
    """
    shared: tuple[str, ...] = _ALONE
    if control is not None:
        shared = (
            *("-o", "ControlMaster=auto"),
            *("-o", f"ControlPath={_escape_percent(control)}/%C"),
            *("-o", f"ControlPersist={_PERSIST_S}"),
        )
    alive = (f"ServerAliveInterval={alive_s}", f"ServerAliveCountMax={alive_count}")
    options = (*_OPTIONS, *shared, "-o", alive[0], "-o", alive[1])
    return ["ssh", *options, "--", host, remote]


def _escape_percent(path: Path) -> str:
    return str(path).replace("%", "%%")


class SshProcess:
    """A running ssh. `on_output` and `on_error` get what it writes, piece by piece.

    Ends with the block, whatever happens in it. Raises `Ds01Error` where there is no ssh.
    """

    def __init__(
        self,
        command: list[str],
        *,
        on_output: Callable[[bytes], None],
        on_error: Callable[[bytes], None],
        takes_input: bool = False,
    ) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # No terminal to ask on, and Ctrl-C is ours to pass on.
                start_new_session=True,
            )
        except OSError as error:
            raise Ds01Error(
                f"cannot run {command[0]}: {error.strerror} (install openssh-client)"
            ) from error
        self._selector = selectors.DefaultSelector()
        # Decision 294: the end of its output would come with the end of a shared connection's
        # master, which holds stderr open.
        self._end = os.pidfd_open(self._process.pid)
        self._selector.register(self._end, selectors.EVENT_READ, None)
        streams = ((self._process.stdout, on_output), (self._process.stderr, on_error))
        for stream, receive in streams:
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, receive)

    def __enter__(self) -> SshProcess:  # noqa: PYI034 - typing has no Self in Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._selector.close()
        os.close(self._end)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def send(self, data: bytes) -> None:
        """Give it input, the last; what it does not take is lost with the connection."""
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError):
                stdin.write(data)
                stdin.flush()
            with suppress(OSError):
                stdin.close()

    def follow(
        self, deadline: float | None, is_enough: Callable[[], bool] = lambda: False
    ) -> int | None:
        """Pass on what it writes until it ends; its exit status.

        None at `deadline`, of time.monotonic(), or as soon as `is_enough` says so of its output.
        """
        while not is_enough():
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            ended = False
            for key, _ in self._selector.select(left_s):
                if key.data is None:
                    ended = True
                else:
                    self._read_piece(key)
            if ended:
                self._read_rest()
                return self._process.wait()
        return None

    def stop(self) -> None:
        """End it, if it still runs: first so that it can end what it started."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read_rest(self) -> None:
        """What is in the pipes by the end; other holders of them are not waited for."""
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                while self._read_piece(key):
                    pass

    def _read_piece(self, key: selectors.SelectorKey) -> bool:
        """Read once; whether there may be more."""
        try:
            data = os.read(key.fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            key.data(data)
            return True
        # At its end it would be ready for ever.
        self._selector.unregister(key.fileobj)
        return False
