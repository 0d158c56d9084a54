"""A host with ds01d as it is: its daemon as a process, on private books and a fake engine.

What is scaled is configuration; only the pauses after the store failed have none, and are set where
the daemon is started.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from simulation.etcd_proxy import HostLinks
from simulation.fake_engine import FakeEngine
from tests.support.daemon import RunningDaemon, Site
from tests.verification.fleet.hosts import CALL_S, Answer, Host

_SLOTS: Final = 8
_START: Final = """
import sys
from ds01d.adapters.fleet import circuit_breaker
circuit_breaker.FIRST_PAUSE_S, circuit_breaker.LONGEST_PAUSE_S = 0.2, 1.0
from ds01d.daemon import fleet_schedule
fleet_schedule.AWAY_RETRY_S, fleet_schedule.CHANGED_AFTER_S = 0.5, 0.3
from ds01d.daemon import fleet_worker
fleet_worker.LEASE_S, fleet_worker.ALIVE_EVERY_S = 3, 0.7
sys.argv[0] = "ds01d"
from ds01d.cli.daemon import main
main()
"""
"""Divided by ten, or hosts would spend most of a storm without the store."""


class DaemonHost(Host):
    """ds01d, without containers: what is booked are reservations, which last an hour here."""

    def __init__(
        self,
        name: str,
        folder: Path,
        links: HostLinks,
        *,
        books_away: bool,
        quotas: Mapping[str, int],
        in_fleet: bool = True,
        is_scaled: bool = True,
        shared_slots: int = 0,
    ) -> None:
        """Not `in_fleet`: without the store. Not `is_scaled`: with the pauses that ds01d has.

        `shared_slots`: how many it has, which containers share; 0: as many as all want.
        """
        super().__init__(name, folder, links, books_away=books_away)
        self.notice_s = 16.0
        self._socket = folder / "booking.sock"
        self._engine = FakeEngine(folder / "docker.sock", ident=f"FAKE:{name}")
        self._engine.start()
        self._site = Site(
            folder / "site",
            self._engine.url,
            books=None,
            service={"socket": str(self._socket)},
            policy={"creation_grace": "1h"},
            allocator={"sharing": "when-full" if shared_slots else "never"},
        )
        if in_fleet:
            away = "local" if books_away else "refuse"
            self._site.configure(fleet={"etcd": links.endpoints, "name": name, "when_away": away})
        self._site.limits.write_text(_make_limits(quotas), encoding="utf-8")
        self._site.state.write_text(
            json.dumps(_make_state(name, shared_slots or _SLOTS)), encoding="utf-8"
        )
        words = ("-c", _START) if is_scaled else ("-m", "ds01d.cli.daemon")
        self._daemon = RunningDaemon(self._site, command=(sys.executable, *words, "--config"))

    @property
    def pid(self) -> int | None:
        return self._daemon.pid if self._daemon.running else None

    @property
    def books_folder(self) -> Path:
        return self._site.state.parent

    def start(self) -> None:
        self._daemon.start()

    def kill(self) -> None:
        self._daemon.kill()

    def close(self) -> None:
        self._daemon.kill()
        self._engine.stop()
        lines = [json.dumps(entry) for entry in self._daemon.entries] + self._daemon.noise
        (self.folder / "log").write_text("\n".join(lines), encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        with suppress(AssertionError):  # it does not run
            super().signal(number)

    def read_errors(self) -> list[str]:
        return [
            str(entry)
            for entry in self._daemon.entries
            if "internal error" in str(entry) or "Traceback" in str(entry)
        ]

    def book(self, user: str, container: str, count: int) -> Answer:
        reply = self._call("Allocate", container=container, user=user, count=count)
        if reply is None:
            return Answer(outcome="")
        parameters = reply.get("parameters", {})
        booking = parameters.get("booking")
        if booking is None:
            code = parameters.get("code") or reply.get("error", "").rpartition(".")[2]
            return Answer(outcome="refused", code=code)
        if booking["already"]:
            return Answer(outcome="refused", code="ALREADY")
        places = tuple(str(given["slot"]) for given in booking["slots"])
        return Answer(outcome="granted", booking=booking["id"], slots=len(places), places=places)

    def release(self, container: str) -> bool | None:
        reply = self._call("Release", container=container)
        return None if reply is None else "error" not in reply

    def forget(self, host: str) -> bool | None:
        reply = self._call("FleetForget", host=host)
        return reply is not None and "error" not in reply

    def rejoin(self) -> bool:
        state = (self._site.status().get("fleet") or {}).get("state")
        if state == "fenced":
            self._call("FleetRejoin")
        return state in {"member", "restored"}

    def read_books(self) -> dict[str, tuple[str, int]] | None:
        """The records first: a booking that is there then had its record before."""
        try:
            records = {
                path.stem: json.loads(path.read_bytes()).get("booking_id") or ""
                for path in self._site.metadata.glob("*.json")
            }
            gpus = json.loads(self._site.state.read_bytes())["gpus"]
        except (OSError, ValueError):
            return None
        slots: dict[str, int] = {}
        for gpu in gpus.values():
            for name in gpu["containers"]:
                slots[name] = slots.get(name, 0) + 1
        return {name: (records.get(name, ""), count) for name, count in slots.items()}

    def is_store_fine(self) -> bool | None:
        source = self._site.status().get("sources", {}).get("fleet")
        return None if source is None else bool(source["ok"])

    def _call(self, method: str, **parameters: object) -> dict[str, Any] | None:
        request = {"method": f"io.github.ds01.Booking.{method}", "parameters": parameters}
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(CALL_S)
            peer.connect(str(self._socket))
            peer.sendall(json.dumps(request).encode() + b"\0")
            reply = b""
            while not reply.endswith(b"\0"):
                data = peer.recv(1 << 16)
                if not data:
                    return None
                reply += data
            answer: dict[str, Any] = json.loads(reply.rstrip(b"\0"))
            return answer
        return None


def _make_limits(quotas: Mapping[str, int]) -> str:
    """One group for each user: the quota is that of GPU-equivalents, and a slot is a whole GPU."""
    lines = [
        "defaults: {allow_full_gpu: true, max_gpu_slots_per_container: 9}",
        "default_group: nobody",
        "groups:",
        "  nobody: {members: [], max_gpu_equivalents: 0}",
        *(
            f"  {user}s: {{members: [{user}], max_gpu_equivalents: {most}}}"
            for user, most in quotas.items()
        ),
    ]
    return "\n".join([*lines, ""])


def _make_state(name: str, slots: int) -> dict[str, object]:
    gpus: dict[str, object] = {
        str(number): {
            "type": "physical_gpu",
            "uuid": f"GPU-{name}-{number}",
            "docker_id": str(number),
            "containers": [],
            "users": {},
            "reserved_until": None,
            "reserved_for": None,
        }
        for number in range(slots)
    }
    return {"gpus": gpus, "mig_enabled": False, "allocation_strategy": "least_allocated"}
