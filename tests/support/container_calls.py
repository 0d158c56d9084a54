"""Calls of io.github.ds01.Containers on a site, served in this process for users of our making."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ds01d import bootstrap
from ds01d.adapters.state_dir import StateDirectory
from ds01d.containers.pending_creations import FILE
from ds01d.containers.service import ContainerService
from ds01d.errors import Refused
from ds01d.model.creation import Person
from ds01d.service.booking import BookingService
from ds01d.service.client import CONTAINERS
from ds01d.service.dispatch import serve_call
from ds01d.service.internal_calls import WorkerAllocator
from ds01d.service.requests import PendingCall, RequestQueue
from ds01d.service.rules import Peer
from ds01d.service.varlink import parse_call
from ds01d.service.waiting import WaitingQueue
from tests.support.daemon import Site


class Call:
    """A call that was made. `replies`: what has come so far."""

    def __init__(self, peer: Peer, method: str, parameters: Mapping[str, object]) -> None:
        self.replies: list[dict[str, Any]] = []
        self._is_over = threading.Event()
        message = {"method": f"{CONTAINERS}.{method}", "parameters": parameters, "more": True}
        self.request = PendingCall(peer, parse_call(json.dumps(message).encode()), self._take)

    def _take(self, message: bytes, is_last: bool) -> None:
        self.replies.append(json.loads(message[:-1]))
        if is_last:
            self._is_over.set()

    def wait(self) -> dict[str, Any]:
        """The last reply."""
        assert self._is_over.wait(60), self.replies
        return self.replies[-1]


class ContainerDesk:
    """The service with its worker. `users` by login."""

    def __init__(self, site: Site, users: dict[str, Person]) -> None:
        self.site, self.users = site, users
        self._called = threading.Event()
        self._over = False
        self.queue = RequestQueue(self._called.set)
        self.config = bootstrap.load_config(site.config)
        self._opened = bootstrap.open_parts(self.config)
        self._opened.state_dir.make()
        self._store, self._file = self._opened.state_dir, site.state_dir / FILE
        self._booking = BookingService(
            self.config, self._opened.world, _read_no_status, WaitingQueue()
        )
        self._opened.world.engine.observe(None)  # nothing is booked before a first pass
        self.service = self.make_service()
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def make_service(self) -> ContainerService:
        """Another one, as after a restart."""
        service = ContainerService(
            self.config,
            self.queue.submit,
            bootstrap.open_container_services,
            lambda _: self._store,
            self._find_user,
        )
        service.apply_config(self.config)
        return service

    @property
    def creations(self) -> list[dict[str, Any]]:
        """What is noted as under way."""
        data = self._file.read_bytes() if self._file.exists() else b""
        found: list[dict[str, Any]] = json.loads(data or b"[]")
        return found

    def note_creations(self, *creations: Mapping[str, object]) -> None:
        """Have these noted as under way, by a process that is gone."""
        self._file.write_text(json.dumps(creations), encoding="utf-8")

    @contextmanager
    def keep_creations(self) -> Iterator[None]:
        """Put back what was noted when the first call began, as if nothing had been noted since."""
        noted = b""

        def save(name: str, data: bytes, *, durable: bool = False) -> None:
            nonlocal noted
            noted = noted or data
            StateDirectory.save(self._store, name, data, durable=durable)

        self._store.save = save  # type: ignore[method-assign]
        yield
        del self._store.save
        self._file.write_bytes(noted)

    def allocator(self, user: str) -> WorkerAllocator:
        """The allocator for a user's own calls."""
        peer = Peer(uid=self.users[user].uid, login=user, pid=1, is_operator=False)
        return WorkerAllocator(peer, self.queue.submit)

    def begin(self, caller: str, method: str, **parameters: object) -> Call:
        """Make a call, and do not wait."""
        person = self.users[caller]
        peer = Peer(uid=person.uid, login=caller, pid=1, is_operator=caller == "olga")
        call = Call(peer, method, parameters)
        self.service.submit(call.request)
        return call

    def call(self, caller: str, method: str, **parameters: object) -> dict[str, Any]:
        """Make a call; the last reply."""
        return self.begin(caller, method, **parameters).wait()

    def close(self) -> None:
        self._over = True
        self.service.stop()
        self.service.join()
        self._called.set()
        self._worker.join(10)
        self._opened.close()

    def _find_user(self, user: int | str) -> Person:
        for person in self.users.values():
            if user in {person.uid, person.name}:
                return person
        raise Refused(f'no user "{user}"')

    def _work(self) -> None:
        while not self._over:
            self._called.wait()
            self._called.clear()
            for request in self.queue.take_requests():
                serve_call(request, self._booking.handlers)


def _read_no_status() -> Any:
    return SimpleNamespace(slots=())


def make_users(homes: Path) -> dict[str, Person]:
    """Three users with homes, in a folder that only root can change; olga is an operator."""
    people = {}
    for uid, name in ((4001, "amy"), (4002, "ben"), (4003, "olga")):
        home = homes / name
        home.mkdir()
        home.chmod(0o700)
        os.chown(home, uid, uid)
        people[name] = Person(uid=uid, name=name, gid=uid, home=str(home), groups=(uid, 4100))
    return people
