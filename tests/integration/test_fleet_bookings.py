"""Daemons of several hosts with one real etcd: one quota over all of them, whatever fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.primitives import ContainerName, Unknown, UserName
from ds01d.service.allocator_client import RemoteAllocator
from ds01d.service.exchange import ServiceRefused
from simulation.etcd import EtcdCluster
from simulation.fake_engine import FakeEngine
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.fleet_store import books_of, started_etcd
from tests.support.schemas import check_document

LIMITS = """\
defaults: {gpu_hold_after_stop: null, priority: 1, max_mig_instances: 2}
default_group: student
groups:
  student: {members: [alice, bob], priority: 10}
"""


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    with started_etcd() as cluster:
        yield cluster


class Host:
    """A daemon on books of its own."""

    def __init__(self, folder: Path, name: str, url: str, fleet: dict[str, object]) -> None:
        folder.mkdir()
        self.name, self.socket = name, folder / "booking.sock"
        self.site = Site(
            folder,
            url,
            service={"socket": str(self.socket)},
            policy={"creation_grace": "10m"},
            allocator={"sharing": "never"},
            fleet={"name": name, **fleet},
        )
        self.site.limits.write_text(LIMITS, encoding="utf-8")
        self.daemon = RunningDaemon(self.site)

    def allocate(self, container: str, user: str = "alice") -> Allocated | Rejected:
        name = ContainerName(f"{container}._.{1001 if user == 'alice' else 1002}")
        return RemoteAllocator(self.socket).allocate(UserName(user), name)

    def release(self, container: str, user: str = "alice") -> None:
        name = ContainerName(f"{container}._.{1001 if user == 'alice' else 1002}")
        RemoteAllocator(self.socket).release(name)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        return RemoteAllocator(self.socket).call(method, parameters)

    @property
    def fleet(self) -> dict[str, Any]:
        found: dict[str, Any] = self.site.status().get("fleet") or {}
        return found

    def wait_for(self, state: str) -> None:
        until(lambda: self.fleet.get("state") == state, what=lambda: str(self.fleet))

    def wait_calm(self) -> None:
        """Until a pass finds nothing to do."""
        until(lambda: self.fleet.get("drifts") == [], what=lambda: str(self.fleet))


@pytest.fixture
def engine_urls(tmp_path: Path) -> Iterator[Sequence[str]]:
    with ExitStack() as stack:
        sockets = [tmp_path / f"engine{number}.sock" for number in (1, 2)]
        yield [stack.enter_context(FakeEngine(socket)).url for socket in sockets]


@contextmanager
def hosts(
    folder: Path, urls: Sequence[str], etcd: EtcdCluster, **fleet: object
) -> Iterator[list[Host]]:
    made = [
        Host(folder / f"gpu0{number}", f"gpu0{number}", url, {"etcd": [*etcd.endpoints], **fleet})
        for number, url in enumerate(urls, 1)
    ]
    with ExitStack() as stack:
        for host in made:
            stack.enter_context(host.daemon)
            host.wait_for("member")  # so that the next one sees it in its first pass
        yield made


def entries(etcd: EtcdCluster) -> dict[str, str]:
    """What the store has of containers, as soon as it answers."""
    contents = books_of(etcd).read_contents()
    if isinstance(contents, Unknown):
        return {"unknown": contents.reason}
    return {str(entry.container): str(entry.phase) for entry in contents.entries}


def _grep(log: Path, event: str) -> list[str]:
    return [line for line in log.read_text(encoding="utf-8").splitlines() if f"|{event}|" in line]


def test_one_quota_over_two_hosts(
    tmp_path: Path, engine_urls: Sequence[str], etcd: EtcdCluster
) -> None:
    with hosts(tmp_path, engine_urls, etcd) as (one, two):
        assert isinstance(one.allocate("a"), Allocated)
        assert isinstance(two.allocate("b"), Allocated)
        refused = two.allocate("c")
        assert isinstance(refused, Rejected)
        assert refused.reason == "USER_AT_LIMIT (2/2 on gpu02, gpu01)"
        # As a refusal by the limits of one host is.
        (logged,) = _grep(two.site.allocations, "REJECTED")
        assert "|alice|c._.1001|" in logged
        assert logged.endswith(f"|{refused.reason}")
        taken = two.allocate("a")
        assert isinstance(taken, Rejected)
        assert taken.reason in ("NAME_TAKEN (a._.1001 on gpu01)", refused.reason)
        until(lambda: entries(etcd) == {"a._.1001": "held", "b._.1001": "held"})
        until(lambda: two.fleet.get("entries") == 2, what=lambda: str(two.fleet))
        shown = json.loads(two.site.ctl("quota", "alice", "--json").stdout)
        check_document(shown)
        there = shown["other_hosts"]
        assert (there["held"], there["hosts"], shown["left"]) == (1.0, ["gpu01"], 0.0)
        assert "1 slot on gpu01 (" in two.site.ctl("quota", "alice").stdout
        one.release("a")
        until(lambda: entries(etcd) == {"b._.1001": "held"}, what=lambda: str(one.fleet))
        assert isinstance(two.allocate("c"), Allocated)
        two.release("b")
        two.release("c")
        until(lambda: entries(etcd) == {})
        until(lambda: len(one.fleet["hosts"]) == 2, what=lambda: str(one.fleet))
        assert one.fleet["findings"] == []
        assert [host["host"] for host in one.fleet["hosts"]] == ["gpu01", "gpu02"]
        assert one.site.status()["sources"]["fleet"]["ok"]
        document = json.loads(one.site.ctl("status", "--json").stdout)
        check_document(document)
        assert document["fleet"]["state"] == "member"
        assert "fleet hosts  2, this one is member" in one.site.ctl("status").stdout


def test_etcd_away_and_back(tmp_path: Path, engine_urls: Sequence[str]) -> None:
    with started_etcd() as etcd, hosts(tmp_path, engine_urls, etcd) as (one, two):
        one.allocate("a")
        (member,) = etcd.members
        member.kill()
        given = two.allocate("b")
        assert isinstance(given, Allocated)  # by its own limits
        assert two.daemon.wait_for("source.down", source="fleet")
        two.release("b")
        assert isinstance(two.allocate("b"), Allocated)
        assert isinstance(two.allocate("c"), Allocated)
        until(lambda: two.fleet.get("state") == "away")
        assert "fleet: this host is away: " in two.site.ctl("explain", "b._.1001").stdout
        etcd.start_member(member)
        names = {"a._.1001": "held", "b._.1001": "held", "c._.1001": "held"}
        until(lambda: entries(etcd) == names, what=lambda: str(two.fleet))
        assert two.daemon.wait_for("source.up", source="fleet")
        until(lambda: bool(two.fleet["findings"]))
        assert "over-quota alice: 3 of 2 slots over all hosts" in two.site.ctl("status").stdout
        assert {f["kind"] for f in two.fleet["findings"]} == {"over-quota"}
        assert two.site.bookings() >= {("b._.1001", given.slot)}


def test_or_bookings_are_refused(tmp_path: Path, engine_urls: Sequence[str]) -> None:
    with (
        started_etcd() as etcd,
        hosts(tmp_path, engine_urls[:1], etcd, when_away="refuse") as (one,),
    ):
        one.allocate("a")
        (member,) = etcd.members
        member.freeze()
        try:
            with pytest.raises(ServiceRefused, match="cannot reserve in the store of the fleet"):
                one.allocate("b")
            one.release("a")
        finally:
            member.thaw()
        until(lambda: try_allocate(one, "b"), what=lambda: str(one.fleet))


def try_allocate(host: Host, name: str) -> bool:
    """Whether it is booked; False while the store counts as away, as it does for some seconds."""
    try:
        return isinstance(host.allocate(name), Allocated)
    except ServiceRefused as refusal:
        if "cannot reserve in the store of the fleet" not in str(refusal):
            raise
        return False


def test_a_killed_daemon_leaves_nothing_behind(
    tmp_path: Path, engine_urls: Sequence[str], etcd: EtcdCluster
) -> None:
    with hosts(tmp_path, engine_urls[:1], etcd) as (one,):
        one.allocate("a")
        one.allocate("b", "bob")
        one.daemon.kill()
        # What a daemon that is killed right after a reservation leaves, and before a confirmation.
        one.daemon.start()
        one.wait_for("member")
        one.wait_calm()
        # It may be shown as a member before its first pass is over.
        until(lambda: set(entries(etcd).values()) == {"held"}, what=lambda: str(entries(etcd)))
        one.release("a")
        one.release("b", "bob")
        until(lambda: not entries(etcd))


def test_commands_of_an_admin(tmp_path: Path, engine_urls: Sequence[str]) -> None:
    with started_etcd() as etcd, hosts(tmp_path, engine_urls, etcd) as (one, two):
        one.allocate("a")
        # A host that it never saw is nothing that it misses.
        until(lambda: len(one.fleet["hosts"]) == 2, 120, what=lambda: str(one.fleet))
        two.daemon.stop()
        refused = one.site.ctl("fleet", "forget", "gpu02")
        assert "add --yes" in refused.stderr
        assert refused.returncode != 0
        assert one.site.ctl("fleet", "forget", "nobody", "--yes").stderr.startswith(
            "ds01ctl: no host is called 'nobody'"
        )
        etcd.run_etcdctl("del", "--prefix", "/ds01/v1/nodes/")
        one.wait_for("fenced")
        assert "ds01ctl fleet rejoin" in one.fleet["reason"]
        one.daemon.wait_for("fleet.fenced")
        assert {name for name, _ in one.site.bookings()} == {"a._.1001"}
        done = one.site.ctl("fleet", "rejoin")
        assert (done.returncode, done.stdout[:20]) == (0, "Rejoined: this host ")
        # The keys of the other one are gone as well, and nobody had it forgotten.
        one.wait_for("restored")
        until(lambda: "reported yet: gpu02:" in one.fleet["reason"], what=lambda: str(one.fleet))
        done = one.site.ctl("fleet", "forget", "gpu02", "--yes")
        assert done.stdout == "Forgotten: gpu02 (0 slots)\n", done.stderr
        one.wait_for("member")
        until(lambda: entries(etcd) == {"a._.1001": "held"}, what=lambda: str(one.fleet))
        assert "trusted already" in one.site.ctl("thaw", "--fleet").stderr


_LIST_MODULES = """
import atexit, sys
from ds01d.cli.daemon import main
def show():
    names = sorted(name for name in sys.modules if "fleet" in name or "etcd" in name)
    print("loaded", *names, file=sys.stderr)
atexit.register(show)
main()
"""


def test_off_by_default_nothing_of_it_is_imported_opened_or_written(
    tmp_path: Path, fake_engine: FakeEngine
) -> None:
    site = Site(tmp_path, fake_engine.url)
    with RunningDaemon(site, command=(sys.executable, "-c", _LIST_MODULES, "--config")) as daemon:
        process = Path(f"/proc/{daemon.pid}")
        opened = set()
        for path in (process / "fd").iterdir():
            with suppress(FileNotFoundError):  # it sweeps meanwhile
                opened.add(str(path.readlink()))
        for table in ("tcp", "tcp6", "udp", "udp6"):
            lines = (process / "net" / table).read_text("ascii").splitlines()[1:]
            assert not {f"socket:[{line.split()[9]}]" for line in lines} & opened
        names = set()
        for path in (process / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                names.add(path.joinpath("comm").read_text())
        assert not [name for name in names if "fleet" in name]
        status = site.status()
        assert "fleet" not in status["sources"]
        assert status["fleet"] is None
        assert not (site.state_dir / "fleet.json").exists()
        daemon.stop()
        (loaded,) = [line.split() for line in daemon.noise if line.startswith("loaded")]
    # The values of its settings, and of its part of the status.
    assert loaded == ["loaded", "ds01d.fleet_settings", "ds01d.reporting.fleet_status"]
