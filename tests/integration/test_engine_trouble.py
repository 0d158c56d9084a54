"""dockerd killed, stopped, restarted, changed while nobody looked, and replaced by another one.

Nothing that lives loses its booking, and what is gone is released: at the latest one sweep after
the longest grace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from simulation.proxy import Mode, Proxy
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site

pytestmark = pytest.mark.docker

LABELS = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
HENRYS = {"aime.mlc": "henry", "aime.mlc.USER": "henry"}


def start(engine: PrivateEngine, site: Site, name: str, slot: str, **options: object) -> None:
    """Book and run a container of alice, or of henry whose holds are short.

    Before ds01d runs: a start that takes longer than the creation grace would cost the booking.
    """
    labels = HENRYS if name.endswith(".1003") else LABELS
    site.allocator.allocate(name, labels["aime.mlc"], slot)
    engine.run(name, devices=site.uuid(slot), labels=labels, **options)  # type: ignore[arg-type]


def hangs_dies_and_restarts(folder: Path, engine: PrivateEngine) -> None:
    # What is absent is kept for that long, from when the engine is back until it is killed.
    site = Site(folder, engine.url, policy={"creation_grace": "5s"})
    stays, lives, ends = ("stays._.1001", "1.0"), ("lives._.1003", "1.1"), ("ends._.1003", "1.2")
    start(engine, site, *stays)
    start(engine, site, *lives, restart="always")
    start(engine, site, *ends)
    with RunningDaemon(site) as daemon:
        daemon.reload()

        since = daemon.mark()
        engine.pause()
        site.allocator.allocate("absent._.1001", "alice", "1.3")
        daemon.wait_for("source.down", since=since, source="docker")
        daemon.outlast(0.7)  # a whole deadline more
        daemon.booked(stays, lives, ends, ("absent._.1001", "1.3"))
        assert site.taken() == []
        engine.resume()
        daemon.wait_for("source.up", since=since, source="docker")

        since = daemon.mark()
        engine.kill()
        daemon.wait_for("source.down", since=since, source="docker")
        daemon.outlast(0.7)
        daemon.booked(stays, lives, ends, ("absent._.1001", "1.3"))
        assert site.taken() == []
        engine.start()
        daemon.wait_for("source.up", since=since, source="docker")
        # A restart policy brings one container back; the hold of another ends in its time; and
        # nothing at all is known of the fourth.
        daemon.booked(stays, lives)
        assert set(site.taken()) == {ends, ("absent._.1001", "1.3")}

        engine.restart()
        daemon.outlast(1.0)
        daemon.booked(stays, lives)
        engine.remove(stays[0])
        daemon.booked(lives)
        daemon.at_rest()
        assert len(site.taken()) == 3


# --- changed while nobody looked

Away = Callable[[RunningDaemon, Proxy, PrivateEngine], AbstractContextManager[None]]


@contextmanager
def stopped_daemon(daemon: RunningDaemon, proxy: Proxy, engine: PrivateEngine) -> Iterator[None]:
    daemon.stop()
    yield
    daemon.start()


@contextmanager
def cut_stream(daemon: RunningDaemon, proxy: Proxy, engine: PrivateEngine) -> Iterator[None]:
    proxy.refuse()
    daemon.wait_for("source.down", source="docker")
    yield
    proxy.accept()


@contextmanager
def cut_and_restarted(daemon: RunningDaemon, proxy: Proxy, engine: PrivateEngine) -> Iterator[None]:
    with cut_stream(daemon, proxy, engine):
        yield
        engine.kill()
        engine.start()


def changed(folder: Path, engine: PrivateEngine, *, away: Away) -> None:
    with Proxy(engine.root / "proxy.sock", engine.socket) as proxy:
        site = Site(folder, proxy.url)
        start(engine, site, "stays._.1001", "1.0", restart="always")
        start(engine, site, "removed._.1001", "1.1")
        start(engine, site, "stopped._.1003", "1.2")
        start(engine, site, "renamed._.1001", "1.3", restart="always")
        start(engine, site, "again._.1001", "2.0")
        with RunningDaemon(site) as daemon:
            changed_on(daemon, proxy, engine, away)


def changed_on(daemon: RunningDaemon, proxy: Proxy, engine: PrivateEngine, away: Away) -> None:
    site = daemon.site
    daemon.reload()
    with away(daemon, proxy, engine):
        engine.remove("removed._.1001")
        engine.stop_container("stopped._.1003")
        engine.client.rename("renamed._.1001", "other._.1001")
        engine.remove("again._.1001")
        for name, slot in (("again._.1001", "2.0"), ("new._.1001", "2.1")):
            engine.run(name, devices=site.uuid(slot), labels=LABELS, restart="always")
    daemon.booked(
        ("stays._.1001", "1.0"),
        ("other._.1001", "1.3"),
        ("again._.1001", "2.0"),
        ("new._.1001", "2.1"),
    )
    daemon.at_rest()
    taken = sorted(name for name, _ in site.taken())
    assert taken == ["removed._.1001", "renamed._.1001", "stopped._.1003"]
    assert site.record("removed._.1001") is site.record("renamed._.1001") is None
    assert (site.record("other._.1001") or {})["user"] == "alice"


# --- an engine that answers badly


def answers_badly(folder: Path, engine: PrivateEngine) -> None:
    with Proxy(engine.root / "proxy.sock", engine.socket) as proxy:
        site = Site(folder, proxy.url)
        lives, wedged = ("lives._.1001", "1.0"), ("wedged._.1003", "1.1")
        for booking in (lives, wedged):
            start(engine, site, *booking)
        with RunningDaemon(site) as daemon:
            site.allocator.allocate("gone._.1001", "alice", "1.2")
            daemon.reload()

            # Whatever it says to the list: nothing is concluded from it.
            for mode in (Mode.ERROR, Mode.NONSENSE, Mode.GARBAGE, Mode.HALF, Mode.RESET, Mode.HANG):
                since = daemon.mark()
                proxy.fault(r"GET /containers/json", mode)
                proxy.cut()
                daemon.wait_for("source.down", since=since, source="docker")
                daemon.reload()
                assert {lives, wedged} <= site.bookings()
                proxy.clear()
                until(lambda: site.status()["sources"]["docker"]["ok"], what="docker ok")

            # One container that cannot be inspected holds nobody else up, and loses nothing.
            daemon.booked(lives, wedged)
            known = engine.client.inspect_container(wedged[0])["Id"]
            proxy.fault(rf"GET /containers/({known}|{wedged[0]})/json", Mode.HANG)
            engine.stop_container(wedged[0])
            site.allocator.allocate("gone._.1001", "alice", "1.2")
            daemon.booked(lives, wedged)
            engine.remove(lives[0])
            daemon.booked(wedged)
            daemon.outlast(2.0)  # its hold is over, but that cannot be proven
            daemon.booked(wedged)
            proxy.clear()
            daemon.booked()
            daemon.at_rest()


# --- another engine


def another_engine(folder: Path, engine: PrivateEngine) -> None:
    site = Site(folder, engine.url)
    old = [("a._.1001", "1.0"), ("b._.1001", "1.1")]
    for booking in old:
        start(engine, site, *booking)
    with RunningDaemon(site) as daemon:
        daemon.reload()
        engine.switch_data_root("other-data")
        daemon.wait_for("engine.changed", level="error")
        daemon.wait_for("drift.found", gate="engine", container="a._.1001")
        daemon.outlast(0.7)
        daemon.booked(*old)
        assert not site.status()["engine_trusted"]
        plan = site.plan()
        assert {(d["container"], d["verdict"]) for d in plan["drifts"]} == {
            ("a._.1001", "waiting"),
            ("b._.1001", "waiting"),
        }
        assert all("thaw --engine" in drift["reason"] for drift in plan["drifts"])

        # It survives a restart of ours, and what is new on that engine is booked all the same.
        daemon.stop()
        daemon.start()
        engine.run("new._.1001", devices=site.uuid("2.0"), labels=LABELS)
        daemon.booked(*old, ("new._.1001", "2.0"))

        # The old engine comes back, and is trusted as before.
        engine.switch_data_root("data")
        until(lambda: site.status()["engine_trusted"], what="trust")
        daemon.booked(*old)  # what is new on the other one is really gone
        assert site.taken() == [("new._.1001", "2.0")]

        engine.switch_data_root("other-data")
        until(lambda: not site.status()["engine_trusted"], what="distrust")
        done = site.ctl("thaw", "--engine")
        assert done.returncode == 0, done.stderr
        daemon.booked()
        daemon.at_rest()
        assert site.status()["engine_trusted"]


# --- told

Story = Callable[[Path, PrivateEngine], None]
STORIES: Mapping[str, Story] = {
    "changed behind a stopped ds01d": partial(changed, away=stopped_daemon),
    "changed behind a cut stream": partial(changed, away=cut_stream),
    "changed and restarted": partial(changed, away=cut_and_restarted),
    "answers badly": answers_badly,
    "another engine": another_engine,
}


@pytest.mark.parametrize("story", STORIES)
def test_engine_trouble_costs_nobody_who_lives_a_booking(
    tmp_path: Path, engine: PrivateEngine, story: str
) -> None:
    STORIES[story](tmp_path, engine)


def test_an_engine_that_hangs_dies_and_restarts_costs_nobody_either(
    tmp_path: Path, engine: PrivateEngine
) -> None:
    hangs_dies_and_restarts(tmp_path, engine)
