"""The real daemon as a process, on private books: `Site` is its host, `RunningDaemon` a run of it.

Nothing here sleeps to be lucky. What should happen is waited for with a deadline; that something
does not happen is shown by waiting until the daemon has looked again (`sweeps`), then looking at
the books and at the history, which has every change that was ever made.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support import forked
from tests.support.books import DEADLINE_S, Booking, BooksOnDisk, until
from tests.support.legacy import LegacyAllocator
from tests.support.samples import copy_sample

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"

SHORT: Mapping[str, Mapping[str, object]] = {
    "docker": {"timeout": "700ms"},
    "gpu": {"source": "none", "timeout": "1s"},
    "books": {"lock_timeout": "2s"},
    "logs": {"syslog": False},
    "service": {"socket": ""},
    "daemon": {"sweep_interval": "700ms", "sweep_jitter": "0s"},
    "policy": {
        "settle": "200ms",
        "absence_grace": "700ms",
        "creation_grace": "2s",
        "freeze": "500ms",
        "boot_grace": "0s",
        "pace_count": 1000,
    },
}
"""Real values divided by some hundred, so that a test lasts seconds."""

LIMITS = """\
defaults: {gpu_hold_after_stop: null, priority: 1}
default_group: student
groups:
  student: {members: [alice, bob], priority: 10}
  hasty: {members: [henry], priority: 20, gpu_hold_after_stop: 1s}
  patient: {members: [paula], priority: 20, gpu_hold_after_stop: 6s}
"""
"""How long a stopped container keeps its slot: henry's a second, paula's six, others' for ever."""


class Site(BooksOnDisk):
    """Private books, logs, limits and configuration in a folder, for daemons and commands.

    `books` names a folder of `tests/data/states`. `tables` change the configuration, which is
    `SHORT` over the defaults: `Site(folder, url, policy={"settle": "1s"})`.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        books: str | None = "v3-dcce6c2-prod4",
        empty: bool = True,
        env: Mapping[str, str] | None = None,
        **tables: Mapping[str, object],
    ) -> None:
        """With `empty` the slots of `books` are there, but nothing is booked."""
        self.folder = folder
        self.url = url
        self.env = dict(env or {})
        super().__init__(folder / "lib", folder / "log", folder / "ds01d")
        self.limits = folder / "resource-limits.yaml"
        self.config = folder / "ds01d.toml"
        self.tables = tables
        if books is not None:
            for name in ("lib", "log"):
                copy_sample(DATA / "states" / books / name, folder / name)
        for path in (self.metadata, self.operations.parent):
            path.mkdir(parents=True, exist_ok=True)
        self.limits.write_text(LIMITS, encoding="utf-8")
        if books is not None and empty:
            self.empty()
        self.allocator = LegacyAllocator(
            self.state, self.metadata, self.allocations, self.operations
        )
        self.configure()

    def configure(self, **tables: Mapping[str, object]) -> None:
        """Write the configuration, with these tables changed from now on."""
        for name, table in tables.items():
            self.tables[name] = {**self.tables.get(name, {}), **table}
        self.config.write_text(toml(self._whole()), encoding="utf-8")

    def _whole(self) -> dict[str, dict[str, object]]:
        paths: dict[str, dict[str, object]] = {
            "docker": {"url": self.url},
            "books": {
                "state": str(self.state),
                "metadata": str(self.metadata),
                "limits": str(self.limits),
            },
            "logs": {"operations": str(self.operations), "allocations": str(self.allocations)},
            "daemon": {"state_dir": str(self.state_dir)},
        }
        names = sorted({*SHORT, *paths, *self.tables})
        return {
            name: {**SHORT.get(name, {}), **paths.get(name, {}), **self.tables.get(name, {})}
            for name in names
        }

    # --- what ds01d says

    def ctl(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run ds01ctl to its end."""
        done = forked.call("ds01d.cli.ctl.main", arguments, env=self.environment())
        assert not check or done.returncode == 0, f"{done.args}: {done.stdout}{done.stderr}"
        return done

    def plan(self) -> dict[str, Any]:
        """What a pass would do now, by `ds01ctl plan --json`."""
        # Patient: an engine on a busy machine is no engine that is away.
        whole = self._whole()
        whole["docker"]["timeout"] = "10s"
        whole["daemon"]["sweep_interval"] = "30s"  # no shorter than any timeout
        patient = self.folder / "patient.toml"
        patient.write_text(toml(whole), encoding="utf-8")
        answer = self.ctl("--config", str(patient), "plan", "--json")
        assert answer.stdout, answer.stderr
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    def environment(self) -> dict[str, str]:
        """What the daemon and the commands get."""
        known = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        ours = {"DS01D_CONFIG": str(self.config), "PYTHONPATH": str(ROOT)}
        return {**known, **self.env, **ours}


class RunningDaemon:
    """One run of ds01d on a site, as a context manager; `with` waits until it is ready.

    Its log is kept in `entries`, and shown when the test fails. It ends only what it started.
    """

    def __init__(
        self,
        site: Site,
        *,
        env: Mapping[str, str] | None = None,
        ready: bool = True,
        command: Sequence[str] = (sys.executable, "-m", "ds01d.cli.daemon", "--config"),
    ) -> None:
        self.site = site
        self._wait_ready = ready
        self._env = dict(env or {})
        self._command = command
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self.entries: list[dict[str, Any]] = []
        self.noise: list[str] = []

    def __enter__(self) -> RunningDaemon:  # noqa: PYI034 - typing has no Self in Python 3.10
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._process is not None:
                self.stop()
        except BaseException:
            self._show()
            raise
        finally:
            self.kill()
        if kind is not None:
            self._show()

    # --- the process

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; also again, after `stop` or `kill`."""
        assert self._process is None
        since = self.mark()
        self._process = subprocess.Popen(
            [*self._command, str(self.site.config)],
            env={**self.site.environment(), **self._env},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        if self._wait_ready:
            try:
                self.wait_for("daemon.ready", since=since)
            except BaseException:
                self._show()
                self.kill()
                raise

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def reload(self) -> None:
        """SIGHUP, and wait until what it forces is done: one sweep that began after it."""
        at = time.time()
        self.signal(signal.SIGHUP)
        self.sweeps(1, since=at)

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; its exit status."""
        process = self._process
        assert process is not None
        if process.poll() is None:
            process.terminate()
        try:
            status = process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"ds01d did not stop within {within_s:g} s") from None
        self._over()
        return status

    def kill(self) -> None:
        """SIGKILL, with what it started; nothing if it does not run."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # not yet waited for: the number is still ours
        process.wait(60)
        self._over()

    def _over(self) -> None:
        reader, self._reader, self._process = self._reader, None, None
        if reader is not None:
            reader.join(5)

    # --- its log

    def mark(self) -> int:
        """A place in the log, for `since`."""
        with self._changed:
            return len(self.entries)

    def wait_for(
        self, event: str, *, since: int = 0, deadline_s: float = DEADLINE_S, **keys: object
    ) -> dict[str, Any]:
        """The first entry of this event after `since` that has these keys."""
        end = time.monotonic() + deadline_s
        with self._changed:
            while True:
                found = next(self._matching(event, since, keys), None)
                if found is not None:
                    return found
                left = end - time.monotonic()
                over = self._reader is None or not self._reader.is_alive()
                if left <= 0 or over:
                    why = "ds01d ended" if over else f"not within {deadline_s:g} s"
                    raise AssertionError(f"{why}: {event} {keys}")
                self._changed.wait(min(left, 0.2))

    def seen(self, event: str, *, since: int = 0, **keys: object) -> list[dict[str, Any]]:
        """The entries there are by now."""
        with self._changed:
            return list(self._matching(event, since, keys))

    def _matching(
        self, event: str, since: int, keys: Mapping[str, object]
    ) -> Iterator[dict[str, Any]]:
        for entry in self.entries[since:]:
            if entry["event"] == event and all(entry.get(k) == v for k, v in keys.items()):
                yield entry

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = None
                with self._changed:
                    if isinstance(entry, dict):
                        self.entries.append(entry)
                    else:
                        self.noise.append(line)
                    self._changed.notify_all()

    def _show(self) -> None:
        lines = [json.dumps(entry) for entry in self.entries] + self.noise
        sys.stderr.write("\n".join(["--- the log of ds01d", *lines, "---", ""]))

    # --- what it has done

    def sweeps(self, count: int = 1, *, since: float | None = None) -> None:
        """Wait until so many sweeps that began from now on (or from `since`) are over."""
        after = time.time() if since is None else since
        for _ in range(count):
            after = until(partial(self._swept, after), what="another sweep")

    def outlast(self, seconds: float) -> None:
        """Let so much time pass, then have it sweep, and wait until that is done."""
        end = time.monotonic() + seconds
        until(lambda: time.monotonic() >= end, seconds + DEADLINE_S)
        self.reload()

    def _swept(self, after: float) -> float | None:
        sweep = self.site.status().get("last_sweep")
        return float(sweep["at"]) if sweep is not None and sweep["at"] > after else None

    def booked(self, *bookings: Booking, deadline_s: float = DEADLINE_S) -> None:
        """Wait until exactly these are booked."""
        until(
            lambda: self.site.bookings() == set(bookings),
            deadline_s,
            what=lambda: f"{set(bookings)} to be booked, there is {self.site.bookings()}",
        )

    def at_rest(self, deadline_s: float = DEADLINE_S, *, force: bool = False) -> None:
        """Wait until nothing is due, held or failed, as the daemon publishes it after a sweep.

        With `force` the first sweep is asked for, and not waited for.
        """
        began = time.time()
        if force:
            self.signal(signal.SIGHUP)

        def rests() -> bool:
            status = self.site.status()
            sweep = status.get("last_sweep")
            return sweep is not None and sweep["at"] > began and not status["drifts"]

        until(rests, deadline_s, what=lambda: f"at rest: {self.site.status().get('drifts')}")


def toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    """Strings, numbers and booleans are written alike in JSON and in TOML."""
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join([*lines, ""])
