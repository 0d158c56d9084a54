"""The hosts of a campaign, as processes: asked, killed, frozen, and their books looked at.

`ReferenceProcess` is the small one of `reference.py`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulation.etcd_proxy import HostLinks
from tests.support.daemon import ROOT

START_S = 60.0
CALL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Of a booking. `outcome`: "granted", "refused", "" where none came."""

    outcome: str
    code: str = ""
    booking: str = ""
    slots: int = 0
    places: tuple[str, ...] = ()


class Host(ABC):
    """One host, behind its own proxies to the members."""

    def __init__(self, name: str, folder: Path, links: HostLinks, *, books_away: bool) -> None:
        """`books_away`: whether it books while the store is away."""
        self.name, self.folder, self.links = name, folder, links
        self.books_away = books_away
        self.kills = 0
        self.is_up = True
        """False while it is killed and started again: nobody asks then."""
        self.was_forgotten = self.has_been_forgotten = False
        self.late_releases = 0
        self.notice_s = 8.0
        """So long it may say that all is well after the store has lost its leader."""
        folder.mkdir(parents=True)

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it answers."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """None: it does not run."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it at once."""

    def close(self) -> None:
        """End it, with what belongs to it."""
        self.kill()

    def read_errors(self) -> list[str]:
        """What it logged that it must never log."""
        return []

    @abstractmethod
    def book(self, user: str, container: str, count: int) -> Answer: ...

    @abstractmethod
    def release(self, container: str) -> bool | None:
        """Whether it was released; None: no answer."""

    def forget(self, host: str) -> bool | None:
        """Have another host forgotten; None: this kind of host cannot."""
        return None

    def rejoin(self) -> bool:
        """Have it take part again, if it is fenced; whether there is nothing more to do."""
        return True

    @abstractmethod
    def read_books(self) -> dict[str, tuple[str, int]] | None:
        """By container the ID of its booking and how many slots; None: unreadable now."""

    @abstractmethod
    def is_store_fine(self) -> bool | None:
        """Whether the host says that the store answers; None: no answer."""

    @property
    @abstractmethod
    def books_folder(self) -> Path:
        """Where the books lie; moved away they are unreadable."""

    def hide_books(self) -> None:
        self.books_folder.rename(self.books_folder.with_suffix(".away"))

    def show_books(self) -> None:
        away = self.books_folder.with_suffix(".away")
        if away.exists():
            # Somebody may have made the folder meanwhile; what they wrote into it is lost.
            if self.books_folder.exists():
                self.books_folder.rename(self.books_folder.with_suffix(f".{time.monotonic_ns()}"))
            away.rename(self.books_folder)

    def signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def wake(self) -> None:
        """Let it go on, if it was frozen."""
        self.signal(signal.SIGCONT)


class ReferenceProcess(Host):
    """The reference host."""

    def __init__(
        self,
        name: str,
        folder: Path,
        links: HostLinks,
        *,
        books_away: bool,
        quotas: Mapping[str, int],
        bugs: Collection[str] = (),
        client: bool = False,
    ) -> None:
        """`client`: with ds01d's own client of etcd, instead of the small one."""
        super().__init__(name, folder, links, books_away=books_away)
        self._socket = folder / "s"
        self._quotas, self._bugs, self._client = quotas, bugs, client
        if client:
            # A watch that is silent is given up after ten seconds: its member may be frozen.
            self.notice_s = 16.0
        self._process: subprocess.Popen[bytes] | None = None
        # It makes none by itself: books that are away are not empty.
        self.books_folder.mkdir()
        (self.books_folder / "bookings.json").write_text("{}", encoding="ascii")

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def books_folder(self) -> Path:
        return self.folder / "books"

    def start(self) -> None:
        ports = [endpoint.rpartition(":")[2] for endpoint in self.links.endpoints]
        words = ["--host", self.name, "--folder", str(self.folder), "--socket", str(self._socket)]
        words += ["--when-away", "local" if self.books_away else "refuse", "--etcd", *ports]
        for user, most in self._quotas.items():
            words += ["--quota", f"{user}={most}"]
        words += ["--client"] if self._client else []
        for bug in self._bugs:
            words += ["--bug", bug]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.verification.fleet.reference", *words],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_S
        while self._call({"do": "status"}, 5.0) is None:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not start: {self._tail()}")
            time.sleep(0.02)

    def _tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def book(self, user: str, container: str, count: int) -> Answer:
        call = {"do": "book", "user": user, "container": container, "count": count}
        match self._call(call):
            case {"granted": str(booking), "slots": int(slots)}:
                return Answer(outcome="granted", booking=booking, slots=slots)
            case {"refused": str(code)}:
                return Answer(outcome="refused", code=code)
            case _:
                return Answer(outcome="")

    def release(self, container: str) -> bool | None:
        answer = self._call({"do": "release", "container": container})
        return None if answer is None else "released" in answer

    def read_books(self) -> dict[str, tuple[str, int]] | None:
        try:
            rows = json.loads((self.books_folder / "bookings.json").read_bytes())
        except (OSError, ValueError):
            return None
        return {name: (one["booking"], one["count"]) for name, one in rows.items()}

    def is_store_fine(self) -> bool | None:
        answer = self._call({"do": "status"}, 5.0)
        return None if answer is None else bool(answer["fleet"])

    def _call(self, call: dict[str, Any], timeout: float = CALL_S) -> dict[str, Any] | None:
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(timeout)
            peer.connect(str(self._socket))
            peer.sendall(json.dumps(call).encode() + b"\n")
            with peer.makefile("rb") as replies:
                answer: dict[str, Any] = json.loads(replies.readline())
                return answer
        return None
