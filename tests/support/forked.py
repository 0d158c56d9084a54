"""Commands of ds01d in processes forked from one that has imported all of it.

Nine tenths of the processor time of a short command is the import of its modules, and the tests
call hundreds. What is forked here is a process of its own as any other: its environment, folder,
arguments, streams and exit code are the caller's to choose and to see. Where the start or the end
of the interpreter itself is the claim (tests/cli/test_streams.py, installed commands), use
subprocess.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

ROOT: Final = Path(__file__).parents[2]
MODULES: Final = ("ds01d.cli.ctl.main", "ds01d.cli.allocator.main")
"""What can be called; each has a `main`."""
_LOADED: Final = (
    "ds01d.bootstrap",
    "ds01d.bootstrap_books",
    *(
        f"ds01d.cli.{folder}.{path.stem}"
        for folder in ("allocator", "ctl", "doctor")
        for path in sorted((ROOT / "ds01d" / "cli" / folder).glob("[!_]*.py"))
    ),
)


class _Server:
    """The process that forks, started when it is first needed; it answers one request at a time."""

    def __init__(self) -> None:
        self.is_free = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.close)

    def ask(self, request: Mapping[str, object], timeout_s: float) -> list[dict[str, Any]]:
        """What came of each call; nothing if it took too long: then it was ended."""
        if self._process is None:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "tests.support.forked"),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        too_late = threading.Timer(timeout_s, self._end)
        too_late.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        finally:
            too_late.cancel()
        if not line:
            self.close()
            return []
        answers: list[dict[str, Any]] = json.loads(line)
        return answers

    def _end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)

    def close(self) -> None:
        """End it, with what it has forked."""
        process, self._process = self._process, None
        if process is not None:
            with process, suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()


_SERVER: Final = _Server()


def call(
    module: str,
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    merged: bool = False,
    timeout_s: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE WORDS`, to its end. `merged`: stderr goes where stdout goes.

    Raises subprocess.TimeoutExpired.
    """
    command = [sys.executable, "-m", module, *words]
    if not _SERVER.is_free.acquire(blocking=False):  # a call that waits for this one, perhaps
        return subprocess.run(
            command,
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    try:
        (done,) = _ask(module, [words], env=env, merged=merged, timeout_s=timeout_s)
    finally:
        _SERVER.is_free.release()
    return done


def call_at_once(
    module: str, calls: Sequence[Sequence[str]], *, env: Mapping[str, str], timeout_s: float = 60.0
) -> list[subprocess.CompletedProcess[str]]:
    """Several calls at the same time, with stderr in stdout, to the end of the last.

    Raises subprocess.TimeoutExpired.
    """
    with _SERVER.is_free:
        return _ask(module, calls, env=env, merged=True, timeout_s=timeout_s)


def _ask(
    module: str,
    calls: Sequence[Sequence[str]],
    *,
    env: Mapping[str, str],
    merged: bool,
    timeout_s: float,
) -> list[subprocess.CompletedProcess[str]]:
    request = {
        "module": module,
        "calls": [list(words) for words in calls],
        "env": dict(env),
        "umask": _umask(),
        "merged": merged,
    }
    answers = _SERVER.ask(request, timeout_s)
    if not answers:
        raise subprocess.TimeoutExpired([module, *calls[0]], timeout_s)
    return [
        subprocess.CompletedProcess(
            [sys.executable, "-m", module, *words],
            answer["code"],
            answer["stdout"],
            None if merged else answer["stderr"],
        )
        for words, answer in zip(calls, answers, strict=True)
    ]


def _umask() -> int:
    """Ours, without a moment in which other threads have another one."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(next(line for line in status.splitlines() if line.startswith("Umask:"))[6:], 8)


def main() -> None:
    """Fork for each line of stdin, and answer with a line."""
    for module in _LOADED:
        importlib.import_module(module)
    requests, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    for line in requests:
        request = json.loads(line)
        running = [_start(request, words) for words in request["calls"]]
        answers.write(json.dumps([_finish(*one) for one in running]) + "\n")
        answers.flush()


def _start(request: Mapping[str, Any], words: Sequence[str]) -> tuple[int, int, int]:
    """Fork one call: its pid, and the files that its streams are."""
    stdout, stderr = (os.memfd_create(name, 0) for name in ("stdout", "stderr"))
    pid = os.fork()
    if pid == 0:
        _become(request, words, stdout, stderr)
    return pid, stdout, stderr


def _finish(pid: int, stdout: int, stderr: int) -> dict[str, object]:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "stdout": _read(stdout), "stderr": _read(stderr)}


def _read(stream: int) -> str:
    with os.fdopen(stream, "rb") as file:
        file.seek(0)
        return file.read().decode()


def _become(request: Mapping[str, Any], words: Sequence[str], stdout: int, stderr: int) -> NoReturn:
    """Be the command from here on, until its end."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(request["env"])
        os.umask(request["umask"])
        time.tzset()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, number in (
            (nothing, 0),
            (stdout, 1),
            (stdout if request["merged"] else stderr, 2),
        ):
            os.dup2(source, number)
        os.closerange(3, nothing + 1)  # the highest that there is: it was opened last
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - the same
        sys.stderr = open(  # noqa: SIM115 - the same
            2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1
        )
        module = importlib.import_module(request["module"])
        sys.argv = [str(module.__file__), *words]
        try:
            module.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        with suppress(ValueError):  # closed by then
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - as the interpreter shows what nobody catches
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
