"""What a fleet's store costs at 100,000 entries: `.venv/bin/python bench/fleet_store.py [ENTRIES]`.

A real etcd on loopback, of one member, with entries of 1,000 hosts and 2,000 users, and a name for
each. Processor time of ds01d's side and of etcd's, and memory; wall-clock times say something on an
idle machine only.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
# In the place of this folder, where `bench` would be a file.
sys.path[0] = str(ROOT)

from ds01d.adapters.fleet.book_format import encode_entry, encode_name  # noqa: E402 - see above
from ds01d.adapters.fleet.book_keys import held_key, name_key  # noqa: E402
from ds01d.adapters.fleet.etcd_books import EtcdBooks  # noqa: E402
from ds01d.adapters.fleet.etcd_client import EtcdClient  # noqa: E402
from ds01d.adapters.fleet.etcd_messages import TxnReply, put_key, txn  # noqa: E402
from ds01d.adapters.fleet.etcd_settings import EtcdSettings, parse_endpoint  # noqa: E402
from ds01d.model.fleet_books import (  # noqa: E402
    Changed,
    EntryPhase,
    FleetContents,
    FleetEntry,
    NameEntry,
    NodeId,
    UserEntries,
)
from ds01d.model.primitives import (  # noqa: E402
    BookingId,
    ContainerName,
    SlotId,
    UserName,
    Wall,
)
from simulation.etcd import EtcdCluster, etcd_cluster  # noqa: E402

HOSTS, USERS = 1000, 2000
CHUNK: Final = 100  # operations of a transaction
TIMES: Final = 50
USER: Final = UserName("user7")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def make_entry(number: int) -> FleetEntry:
    user = number % USERS
    return FleetEntry(
        user=UserName(f"user{user}"),
        node=NodeId(f"{number % HOSTS:032x}"),
        booking=BookingId(f"{number:016x}"),
        container=ContainerName(f"train-{number}._.{1000 + user}"),
        phase=EntryPhase.HELD,
        count=1,
        sevenths=7,
        slots=(SlotId(f"{number % 8}.{number % 7}"),),
        since=Wall(1.7e9 + number),
    )


def fill(client: EtcdClient, entries: int) -> None:
    changes: list[dict[str, Any]] = []
    for number in range(entries):
        entry = make_entry(number)
        name = NameEntry(container=entry.container, node=entry.node, booking=entry.booking)
        changes.append(put_key(held_key(entry), encode_entry(entry)))
        changes.append(put_key(name_key(entry.container), encode_name(name)))
        if len(changes) >= CHUNK or number + 1 == entries:
            client.call("/kv/txn", txn([], changes), TxnReply)
            changes = []


class Bench:
    """Prints a line for each measurement."""

    def __init__(self, cluster: EtcdCluster) -> None:
        self._server = cluster.members[0].pid
        self._memory_before = _memory_mib(os.getpid())

    def measure(self, name: str, act: Callable[[], object], times: int = 1) -> None:
        wall, own, server = time.monotonic(), time.process_time(), _processor_s(self._server)
        for _ in range(times):
            act()
        wall, own = time.monotonic() - wall, time.process_time() - own
        server = _processor_s(self._server) - server
        parts = (f"{1000 * seconds / times:9.1f} ms" for seconds in (own, server, wall))
        memory = _memory_mib(os.getpid()) - self._memory_before
        sys.stdout.write(f"{name:44}{''.join(parts)}  {memory:+5.0f} MiB\n")


def _processor_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def _memory_mib(pid: int) -> float:
    words = Path(f"/proc/{pid}/statm").read_text("ascii").split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Fill, read, count, reserve; then the sizes."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with etcd_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        settings = EtcdSettings(
            endpoints=tuple(map(parse_endpoint, cluster.endpoints)), timeout_s=60.0
        )
        client = EtcdClient(settings)
        books = EtcdBooks(client, NodeId("bench"))
        bench = Bench(cluster)
        sys.stdout.write(
            f"etcd {cluster.programs.version}, {entries:,} entries\n"
            f"{'':44}{'ds01d':>12}{'etcd':>12}{'clock':>12}  memory of ds01d\n"
        )
        bench.measure("fill", lambda: fill(client, entries))
        bench.measure("read all, the first time", lambda: read(books))
        bench.measure("read all, nothing changed", lambda: read(books), 5)
        bench.measure("report one, read all", lambda: report_and_read(books), 5)
        bench.measure("report, read, withdraw, read all", lambda: withdraw_and_read(books), 4)
        bench.measure("count one user", lambda: read_user(books), TIMES)
        bench.measure("count, reserve, withdraw", lambda: book(books), TIMES)
        backup = Path(folder) / "backup"
        cluster.save_snapshot(backup)
        size = backup.stat().st_size / 2**20
        memory = _memory_mib(cluster.members[0].pid)
        sys.stdout.write(f"etcd: {memory:.0f} MiB of memory, a backup of {size:.0f} MiB\n")
    return 0


def read(books: EtcdBooks) -> None:
    assert isinstance(books.read_contents(), FleetContents)


def read_user(books: EtcdBooks) -> UserEntries:
    answer = books.read_user(USER)
    assert isinstance(answer, UserEntries)
    return answer


def make_reservation(number: int = 1) -> FleetEntry:
    """Of this host, one that is not among the others."""
    return FleetEntry(
        user=USER,
        node=NodeId("bench"),
        booking=BookingId(f"bench-{number}"),
        container=ContainerName(f"bench-{number}"),
        phase=EntryPhase.RESERVED,
        count=1,
        sevenths=7,
        since=Wall(1.7e9),
    )


def report_and_read(books: EtcdBooks) -> None:
    assert isinstance(books.report_entry(make_reservation()), Changed)
    read(books)


def withdraw_and_read(books: EtcdBooks) -> None:
    # One that is there each time, so that something was deleted.
    assert isinstance(books.report_entry(make_reservation(3)), Changed)
    read(books)
    assert isinstance(books.withdraw_entry(make_reservation(3)), Changed)
    read(books)


def book(books: EtcdBooks) -> None:
    entry = make_reservation(2)
    assert isinstance(books.reserve_entry(entry, read_user(books).fence), Changed)
    assert isinstance(books.withdraw_entry(entry), Changed)


if __name__ == "__main__":
    sys.exit(main())
