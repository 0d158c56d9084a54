"""Hosts of a fleet in this process: simulated host and store, ds01d's own parts between them."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ds01d import config as configuration
from ds01d.config import Config
from ds01d.daemon.fleet_session import FleetSession
from ds01d.daemon.fleet_worker import FleetParts
from ds01d.model.limits import GpuQuota, Limits
from ds01d.model.primitives import UserName
from ds01d.reconcile.fleet_memory import HostFacts
from ds01d.reconcile.fleet_ports import FleetBook
from ds01d.reporting.status import Status
from ds01d.service.booking import BookingService
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import serve_call
from ds01d.service.quota_calls import QuotaCalls
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.varlink import MethodCall
from ds01d.service.waiting import WaitingQueue
from tests.service.test_status_calls import status
from tests.support.build import LIMITS, Life, books, config, slot, whole

Json = dict[str, Any]
PATIENCE_S = 30.0
UIDS = {"alice": 1001, "bob": 1002, "root": 0}


class FilesInMemory:
    """ds01d's own directory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def load_kept(self, name: str) -> bytes | None:
        return self.files.get(name)

    def save(self, name: str, data: bytes, *, durable: bool = False) -> None:
        assert durable in (True, False)
        self.files[name] = data


def limits(most: int | None = 2, gpus: GpuQuota | None = None) -> Limits:
    return replace(LIMITS, default_quota=most, default_gpu_quota=gpus)


def fleet_config(when_away: str = "local") -> Config:
    fleet = configuration.FleetConfig(etcd=("http://127.0.0.1:1",), when_away=when_away)  # type: ignore[arg-type]
    return msgspec.structs.replace(
        config(mode="repair"),
        fleet=fleet,
        allocator=configuration.AllocatorConfig(sharing="never"),
    )


@dataclass
class Asked:
    """A call that was made. `replies`: what has come."""

    replies: list[Json] = field(default_factory=list)
    request: PendingCall | None = None

    @property
    def last(self) -> Json:
        return self.replies[-1]


class FleetHost:
    """One host. Passes over the store are made when a test says so (`sync`)."""

    def __init__(
        self,
        name: str,
        book: FleetBook,
        *,
        slots: int = 3,
        when_away: str = "local",
        files: FilesInMemory | None = None,
        life: Life | None = None,
    ) -> None:
        self.name, self.book = name, book
        self.files = files or FilesInMemory()
        self.woken = threading.Event()
        self.life = life or Life(
            fleet_config(when_away),
            gpu=whole(slots),
            state=books(*(slot(str(n), uuid=f"GPU-{n}") for n in range(slots))),
            limits=limits(),
            passwd={1001: "alice", 1002: "bob"},
        )
        self.queue = WaitingQueue()
        world = self.life.host.world()
        self.session = FleetSession(
            FleetParts(book=book, store=self.files, read_facts=self._read_facts),
            self.life.config,
            world,
            self.read_status,
            self.woken.set,
        )
        self.service = BookingService(
            self.life.config, world, self.read_status, self.queue, fleet=self.session.bookings
        )
        self.quotas = QuotaCalls(
            world, self.read_status, self.queue, self.session.find_use_elsewhere
        )
        self.reservations = self.session._worker.reservations
        self.worker = self.session._worker

    def _read_facts(self) -> HostFacts:
        return HostFacts(
            host=self.name, boot_id="", engine_id=self.name, version="1", protocols=(1,)
        )

    def read_status(self) -> Status:
        return status(1)

    # --- passes

    def sweep(self) -> None:
        """A pass over this host, shown to the fleet."""
        self.session.add_report(self.life.sweep())

    def sync(self) -> None:
        """A pass over the store, in this thread."""
        self.worker._pass.run()
        self.book.keep_alive(30)
        self.reservations.has_joined.set()

    def settle(self) -> None:
        """Passes until what only needs time is done."""
        for _ in range(3):
            self.sweep()
            self.sync()
            self.life.host.pass_time(60)

    def kinds(self) -> set[tuple[str, str]]:
        report = self.worker.report
        assert report is not None
        return {(str(g.drift.kind), str(g.outcome)) for g in report.drifts}

    def findings(self) -> dict[str, str]:
        report = self.worker.report
        assert report is not None
        return {f"{f.kind} {f.subject}": f.reason for f in report.findings}

    # --- calls

    def begin(
        self, method: str, *, by: str = "alice", more: bool = False, **given: object
    ) -> Asked:
        """Make a call, and serve it as far as it goes without the store."""
        asked = Asked()
        call = MethodCall(
            method=f"{INTERFACE}.{method}",
            parameters=msgspec.Raw(json.dumps(given).encode()),
            more=more,
        )
        peer = Peer(uid=UIDS[by], login=by, pid=7, is_operator=by == "root")
        asked.request = PendingCall(
            peer, call, lambda data, _: asked.replies.append(json.loads(data.rstrip(b"\0")))
        )
        assert asked.request.take()
        handlers = {**self.service.handlers, **self.session.handlers, **self.quotas.handlers}
        serve_call(asked.request, handlers)
        self.show_changes()
        return asked

    def serve_jobs(self) -> None:
        """Do what the thread of bookings has to do, and serve its answers, to the end."""
        while not self.reservations._jobs.empty() or self.reservations.has_answers:
            self.step_job()
            self.service.serve_reserved()
            self.show_changes()

    def step_job(self) -> None:
        """One job of the thread of bookings."""
        with suppress(Exception):
            job = self.reservations._jobs.get_nowait()
            assert job is not None
            self.reservations._serve_job(job)

    def show_changes(self) -> None:
        names = self.service.take_changed_names()
        if names:
            self.session.add_changes(names)

    def call(self, method: str, *, by: str = "alice", **given: Any) -> Json:
        """The last reply to a call."""
        asked = self.begin(method, by=by, **given)
        self.serve_jobs()
        return asked.last

    def allocate(self, container: str, *, by: str = "alice", **given: object) -> Json:
        return self.call("Allocate", by=by, container=container, **given)

    def release(self, container: str, *, by: str = "alice") -> Json:
        return self.call("Release", by=by, container=container)

    @property
    def booked(self) -> set[tuple[str, str]]:
        return self.life.host.bookings()


def refusal(reply: Json) -> str:
    """The code and the detail of a refusal, or the reason why nothing can be done."""
    parameters = reply["parameters"]
    if "reason" in parameters:
        return str(parameters["reason"])
    return f"{parameters['code']} ({parameters['detail']})"


def user(name: str) -> UserName:
    return UserName(name)
