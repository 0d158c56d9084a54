"""The fleet of a campaign: members, hosts behind proxies, what was asked of them, and the watch."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulation.etcd import EtcdCluster, etcd_cluster
from simulation.etcd_links import PeerLinks
from simulation.etcd_proxy import HostLinks
from tests.verification.campaign.clock import boot
from tests.verification.fleet.checker import Violation, check_history
from tests.verification.fleet.daemon_host import DaemonHost
from tests.verification.fleet.hosts import Answer, Host, ReferenceProcess
from tests.verification.fleet.keys import HeldKey, NameKey, NodeKey, parse_key
from tests.verification.fleet.records import Attempt, Forgotten, History, Look, Restored, Wrong
from tests.verification.fleet.watcher import Watcher, read_everything

MEMBERS: Final = 3
CALM_S: Final = 90.0
"""So long hosts and store may differ after all faults have ended, on a machine with other work."""
SLOW_S: Final = 4.0
FOUND: Final[Mapping[str, str]] = {
    "lasting difference": "the store does not come to say what the books of a host say",
    "waited for the store": "a release was answered only when a booking had given up on the store",
    "outage not noticed": "a host says that the store answers while it has no leader",
    "host died": "a host ended by itself",
    "error in the log": "a host logged an internal error",
}
"""What the campaign finds itself."""
QUOTAS: Final = {"daemon": 3, "bin": 3, "sys": 4, "mail": 2, "games": 12}
"""Slots of each user over all hosts; logins of every Debian. The last one is never at the quota."""


@dataclass(slots=True, kw_only=True)
class _Asked:
    """An attempt that may still change."""

    host: str
    user: str
    container: str
    count: int
    asked: float
    answered: float = 0.0
    answer: Answer = field(default_factory=lambda: Answer(outcome=""))
    released: float | None = None

    def freeze(self) -> Attempt:
        return Attempt(
            host=self.host,
            user=self.user,
            container=self.container,
            count=self.count,
            asked=self.asked,
            answered=self.answered,
            outcome=self.answer.outcome,
            code=self.answer.code,
            booking=self.answer.booking,
            slots=self.answer.slots,
            places=self.answer.places,
            released=self.released,
        )


class Fleet:
    """Everything of a campaign but its storms."""

    def __init__(self, cluster: EtcdCluster, peers: PeerLinks, hosts: list[Host]) -> None:
        self.cluster, self.peers, self.hosts = cluster, peers, hosts
        self.history = History(
            quotas=dict(QUOTAS),
            strict=frozenset(host.name for host in hosts if not host.books_away),
        )
        self.faults: Counter[str] = Counter()
        self.longest_calm = 0.0
        self.slow: list[str] = []
        """What still differed some seconds after all faults had ended."""
        self._asked: list[_Asked] = []
        self._lock = threading.Lock()
        self._epoch = 0
        self._watcher = self._watch(1)
        self._wait_for_hosts()
        self.first_snapshot = self._save_first()
        """A file, and the revision in it: every host is known there, and nothing is booked."""

    def _wait_for_hosts(self) -> None:
        end = time.monotonic() + CALM_S
        while len(self._read_hosts(read_everything(self._port))) < len(self.hosts):
            assert time.monotonic() < end, "some hosts do not come to the store"
            time.sleep(0.05)

    def _save_first(self) -> tuple[Path, int]:
        file = self.cluster.folder / "first-snapshot"
        return file, self.save_snapshot(file)

    @property
    def _port(self) -> int:
        return self.cluster.members[0].client_port

    @staticmethod
    def _read_hosts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Names of hosts by node."""
        return {
            key.node: value["host"]
            for text, value in rows.items()
            if isinstance(key := parse_key(text), NodeKey) and key.what == "identity"
        }

    def _watch(self, first: int) -> Watcher:
        ports = [member.client_port for member in self.cluster.members]
        return Watcher(ports, self._epoch, first, self.history.changes.append)

    def close(self) -> None:
        self._watcher.stop()

    # --- what is asked of hosts

    def book(self, host: Host, user: str, container: str, count: int) -> Answer:
        asked = _Asked(host=host.name, user=user, container=container, count=count, asked=boot())
        with self._lock:
            self._asked.append(asked)
        answer = host.book(user, container, count)
        asked.answered, asked.answer = boot(), answer
        return answer

    def release(self, host: Host, container: str) -> bool | None:
        """As its user does; from now on nobody knows whether it is booked."""
        now = boot()
        with self._lock:
            for one in self._asked:
                if (one.host, one.container) == (host.name, container) and one.released is None:
                    one.released = now
        return host.release(container)

    def look(self) -> None:
        """Look at the books of every host."""
        for host in self.hosts:
            began = boot()
            books = host.read_books()
            if books is not None:
                bookings = {name: slots for name, (_, slots) in books.items()}
                note = Look(host=host.name, began=began, ended=boot(), bookings=bookings)
                self.history.looks.append(note)

    def accuse(self, kind: str, what: str) -> None:
        assert kind in FOUND
        self.history.wrong.append(Wrong(kind=kind, what=what, at=boot()))

    def forget(self, host: Host) -> bool:
        """Have another host forget this one, which is dead; whether that can be tried."""
        now = boot()
        others = [one for one in self.hosts if one is not host]
        answers = [one.forget(host.name) for one in others[:2]]
        if None in answers:
            return False
        # Also where it was refused: the answer may have been lost.
        host.was_forgotten = host.has_been_forgotten = True
        self.history.add(Forgotten(host=host.name, at=now))
        return True

    # --- the store goes back

    def restore(self, snapshot: Path, revision: int) -> None:
        """Make the store what it was in a snapshot, as a new cluster at the old addresses.

        All hosts are cut off from then on, until `reconnect`.
        """
        for host in self.hosts:
            host.links.hold()
        # What was done last has to be seen: nobody else remembers it.
        assert self._watcher.drain(CALM_S)
        self._watcher.stop()
        self.cluster.restore_snapshot(snapshot)
        self.peers.learn_ids(self.cluster)
        self._epoch += 1
        self.history.add(Restored(epoch=self._epoch, revision=revision, at=boot()))
        self._watcher = self._watch(revision + 1)

    def reconnect(self, hosts: Collection[Host]) -> None:
        for host in hosts:
            host.links.release()

    def save_snapshot(self, file: Path) -> int:
        """Its revision."""
        self.cluster.save_snapshot(file)
        programs = self.cluster.programs
        program = "etcdutl" if programs.has("etcdutl") else "etcdctl"
        status = programs.run(program, "snapshot", "status", str(file), "--write-out=json")
        return int(json.loads(status)["revision"])

    # --- calm

    def heal(self) -> None:
        """End every fault."""
        self.peers.heal()
        for member in self.cluster.members:
            if member.is_running():
                member.thaw()
            else:
                self.cluster.start_member(member)
        self.cluster.wait_until_healthy()
        for host in self.hosts:
            host.links.clear()
            host.show_books()
            host.wake()
            if host.pid is None:
                host.start()

    def calm_down(self) -> float:
        """Until hosts and store say the same; how long that took."""
        self.heal()
        began = time.monotonic()
        differences = ["nothing was read"]
        slow: list[str] = []
        while differences and time.monotonic() < began + CALM_S:
            time.sleep(0.2)
            for host in self.hosts:
                # A backup may be of when it was forgotten: then it is, again.
                if host.has_been_forgotten:
                    host.was_forgotten = not host.rejoin()
            with suppress(OSError, ValueError):
                differences = self.find_differences()
            if differences and not slow and time.monotonic() > began + SLOW_S:
                slow = differences
        for what in differences:
            self.accuse("lasting difference", what)
        self.slow = slow
        self.look()
        self.longest_calm = max(self.longest_calm, time.monotonic() - began)
        return time.monotonic() - began

    def find_differences(self) -> list[str]:
        """Between the books of hosts and the store. Raises OSError, ValueError: no answer."""
        rows = read_everything(self._port)
        hosts = self._read_hosts(rows)
        held: dict[tuple[str, str, str], dict[str, Any]] = {}
        names: dict[str, str] = {}
        for text, value in rows.items():
            match parse_key(text):
                case HeldKey(_, node, booking):
                    held[hosts.get(node, node), value["container"], booking] = value
                case NameKey(container):
                    names[container] = value["booking"]
                case _:
                    pass
        booked: dict[tuple[str, str, str], int] = {}
        found: list[str] = []
        for host in self.hosts:
            books = host.read_books()
            if books is None:
                found.append(f"the books of {host.name} cannot be read")
            for name, (booking, slots) in (books or {}).items():
                # One whose ID was lost in a crash has another one in the store.
                known = booking or _find_only(held, host.name, name)
                booked[host.name, name, known] = slots
        found += [f"{one} is booked, and not in the store" for one in booked.keys() - held.keys()]
        found += [f"{one} is in the store, and not booked" for one in held.keys() - booked.keys()]
        for one in held.keys() & booked.keys():
            if (held[one]["phase"], held[one]["count"]) != ("held", booked[one]):
                found.append(f"{one} is {held[one]} in the store, and {booked[one]} slots booked")
        living = {booking: container for _, container, booking in held}
        found += [
            f"{n} has the name of {b}, which is gone"
            for n, b in names.items()
            if living.get(b) != n
        ]
        found += [f"nobody has the name {name}" for name in {*living.values()} - names.keys()]
        return found

    # --- what came of it

    def check(self) -> list[Violation]:
        assert self._watcher.drain(CALM_S), "the checker does not see the end of the history"
        for host in self.hosts:
            for line in host.read_errors()[:3]:
                self.accuse("error in the log", f"{host.name}: {line[:500]}")
        self.history.attempts = [one.freeze() for one in self._asked]
        return check_history(self.history)

    def count_reservations(self) -> int:
        return sum(
            change.version == 1
            and isinstance(parse_key(change.key), HeldKey)
            and (change.value or {}).get("phase") == "reserved"
            for change in self.history.changes
        )


def _find_only(held: Collection[tuple[str, str, str]], host: str, container: str) -> str:
    """The ID of the only entry of a container on a host; "" where there is none, or several."""
    found = [one for on, name, one in held if (on, name) == (host, container)]
    return found[0] if len(found) == 1 else ""


@contextmanager
def open_fleet(
    folder: Path, *, kind: str, count: int, bugs: Collection[str] = (), shared_slots: int = 0
) -> Iterator[Fleet]:
    """A fleet whose members and hosts run; all of it ends with the block."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        peers = stack.enter_context(PeerLinks())
        settings = ("--heartbeat-interval=100", "--election-timeout=1000")
        cluster = stack.enter_context(
            etcd_cluster(MEMBERS, settings=settings, prepare=peers.prepare)
        )
        peers.learn_ids(cluster)
        ports = [member.client_port for member in cluster.members]
        hosts: list[Host] = []
        for number in range(1, count + 1):
            links = stack.enter_context(HostLinks(ports))
            host = make_host(
                kind,
                f"gpu{number:02}",
                folder,
                links,
                # What is booked without the store is reserved by nobody, and would share with it.
                books_away=number > 1 and not shared_slots,
                bugs=bugs,
                shared_slots=shared_slots,
            )
            stack.callback(host.close)
            hosts.append(host)
        for host in hosts:
            host.start()
        fleet = Fleet(cluster, peers, hosts)
        fleet.history.is_shared = kind == "ds01d" and shared_slots > 0
        stack.callback(fleet.close)
        yield fleet


def make_host(
    kind: str,
    name: str,
    folder: Path,
    links: HostLinks,
    *,
    books_away: bool,
    bugs: Collection[str],
    shared_slots: int,
) -> Host:
    """A host of the kind that the campaign is about."""
    if kind == "ds01d":
        return DaemonHost(
            name,
            folder / name,
            links,
            books_away=books_away,
            quotas=QUOTAS,
            shared_slots=shared_slots,
        )
    return ReferenceProcess(
        name,
        folder / name,
        links,
        books_away=books_away,
        quotas=QUOTAS,
        bugs=bugs,
        client=kind == "client",
    )
