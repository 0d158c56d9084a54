"""The accounting against an independent replay of the history, over whatever may happen."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.adapters.accounting_database import NAME as FILE
from ds01d.adapters.accounting_reader import open_reader
from ds01d.config import DaemonConfig
from ds01d.decide.accounts import Accounts
from ds01d.model.accounting import ReportQuery
from ds01d.model.primitives import ContainerName, Source, Wall
from ds01d.reconcile.reconciler import Reconciler
from tests.support.accounting import NAMES, Accounted, assert_agrees
from tests.support.build import NAME, books, with_docker_books
from tests.support.proofs import HISTORIES
from tests.support.world import WALL

SHM = Path("/dev/shm")
TRAIN = "train._.1001"
PARTS = ("booked", "used", "idle", "retained")
names = st.sampled_from(NAMES)
HAPPENINGS = st.one_of(
    st.tuples(st.just("book"), names, st.integers(1, 2)),
    st.tuples(st.just("book"), names, st.integers(1, 2)),
    st.tuples(st.just("release"), names),
    st.tuples(st.just("reserve")),
    st.tuples(st.just("run"), names),
    st.tuples(st.just("claim"), names),
    st.tuples(st.just("stop"), names),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("undo"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.3, 7.0, 130.0, 1000.0])),
    st.tuples(st.just("set_clock"), st.sampled_from([-4000.0, -0.9, 3.0, 86_400.0])),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("watch"), st.sampled_from([3, 20])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("save")),
    st.tuples(st.just("reboot")),
    st.tuples(st.just("lose")),
)


def happen(host: Accounted, what: str, *args: object) -> None:
    if what == "wait":
        (seconds,) = args
        assert isinstance(seconds, float)
        host.life.host.pass_time(seconds)
    elif what == "remove":
        host.remove(str(args[0]), told=True)
    else:
        act: Callable[..., object] = getattr(host, what)
        act(*args)


@pytest.mark.timeout(7200)  # ten thousand of them, perhaps on a busy machine
@settings(max_examples=HISTORIES, deadline=None)
@given(st.lists(HAPPENINGS, max_size=24))
def test_it_agrees_with_an_independent_replay_of_the_history(
    happenings: list[tuple[object, ...]],
) -> None:
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as folder:
        host = Accounted(Path(folder))
        host.sweep()
        for what, *args in happenings:
            happen(host, str(what), *args)
            host.life.host.pass_time(0.5)
            if what != "wait":
                host.sweep()
        host.sweep()
        host.accounting.close()
        assert_agrees(host.rows(), host.replayed())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Accounted]:
    host = Accounted(tmp_path)
    yield host
    host.accounting.close()


def seconds(host: Accounted, name: str = TRAIN) -> dict[str, float]:
    """What became of the time of a container's bookings."""
    host.save()
    with open_reader(host.folder) as reader:
        assert reader is not None
        query = ReportQuery(since=Wall(0.0), until=Wall(4e9))
        times = [
            one.time.slots for one in reader.list_bookings(query, None) if one.container == name
        ]
    return {part: round(sum(getattr(time, part) for time in times)) for part in PARTS}


def test_its_time_is_used_idle_or_retained_as_the_passes_see_it(host: Accounted) -> None:
    host.book(TRAIN, 1)
    host.run(TRAIN)
    host.watch(5)
    assert seconds(host) == {"booked": 301, "used": 0, "idle": 301, "retained": 0}
    (slot,) = host.life.host.state.find_slots(ContainerName(TRAIN))  # type: ignore[union-attr]
    host.life.use(f"MIG-{slot.replace('.', '-')}", f"id-{TRAIN}")
    host.watch(10)
    host.life.set_gpu(processes=())
    host.stop(TRAIN)
    host.watch(10)
    # The minute in which something changes belongs to what was seen before.
    assert seconds(host) == pytest.approx(
        {"booked": 1506, "used": 602, "idle": 360, "retained": 543}, abs=2
    )


def test_readings_that_failed_are_unknown(host: Accounted) -> None:
    host.book(TRAIN, 1)
    host.run(TRAIN)
    host.watch(5)
    host.life.fail(Source.NVML)
    host.watch(10)
    host.life.mend()
    host.watch(5)
    found = seconds(host)
    assert found["idle"] == pytest.approx(600, abs=70)
    assert found["booked"] == pytest.approx(1205, abs=2)


def test_a_reading_says_nothing_of_a_gap(host: Accounted) -> None:
    host.book(TRAIN, 1)
    host.run(TRAIN)
    host.watch(5)
    host.life.host.pass_time(7200.0)
    host.watch(5)
    found = seconds(host)
    assert found["booked"] == pytest.approx(7803, abs=2)
    assert found["idle"] == pytest.approx(542, abs=70)


def test_what_another_program_books_and_releases_is_seen_by_the_passes(host: Accounted) -> None:
    host.sweep()
    host.life.host.pass_time(20.0)
    host.life.book("1.0", allocated_at=Wall(host.life.host.wall - 5.0))
    host.life.run("MIG-1-0")
    host.sweep()
    host.watch(2)
    host.life.list_in("1.1", name="other")  # without a record
    host.watch(2)
    assert host.replayed() == [], "the history knows nothing of them"
    booked, other = host.rows()
    assert booked.begin == pytest.approx(WALL + 15.25, abs=0.1), "as its record says"
    assert other.begin == pytest.approx(WALL + 200.0, abs=2), "when it was seen first"
    slots = host.life.host.state.slots  # type: ignore[union-attr]
    kept = {name: replace(one, containers=(), users={}) for name, one in slots.items()}
    host.life.host.state = replace(host.life.host.state, slots=kept)  # type: ignore[arg-type]
    host.life.host.records.clear()
    host.life.host.containers.clear()
    host.sweep()
    assert {row.why for row in host.rows()} == {"not-entered"}


def test_a_record_that_claims_more_than_the_passes_saw_is_not_believed(host: Accounted) -> None:
    host.watch(3)
    host.life.book("1.0", allocated_at=Wall(WALL - 1e6))
    host.life.run("MIG-1-0")
    host.sweep()
    (booked,) = host.rows()
    assert booked.begin == pytest.approx(host.life.host.wall, abs=1)


def test_what_went_while_nobody_looked_ends_when_it_was_seen_last(host: Accounted) -> None:
    host.life.book("1.0").run("MIG-1-0")
    host.watch(3)
    host.save()
    seen = host.life.host.wall
    host.accounting.close()
    slots = host.life.host.state.slots  # type: ignore[union-attr]
    kept = {name: replace(one, containers=(), users={}) for name, one in slots.items()}
    host.life.host.state = replace(host.life.host.state, slots=kept)  # type: ignore[arg-type]
    host.life.host.records.clear()
    host.life.host.containers.clear()
    host.life.host.pass_time(36_000.0)
    host.restart()
    host.sweep()
    (booked,) = host.rows()
    assert booked.end == pytest.approx(seen, abs=2)


def test_what_is_lost_comes_back_from_the_history_and_that_is_said(host: Accounted) -> None:
    host.book(TRAIN, 1)
    host.run(TRAIN)
    first = host.life.host.wall
    host.watch(5)
    rows = host.rows()
    host.lose()
    host.sweep()
    assert_agrees(host.rows(), rows)
    host.save()
    with open_reader(host.folder) as reader:
        assert reader is not None
        assert reader.progress.complete_since == pytest.approx(first, abs=1)
        assert reader.progress.sampled_since == pytest.approx(host.life.host.wall, abs=1)


def test_one_that_is_damaged_is_made_anew_by_the_next_pass(host: Accounted) -> None:
    host.book(TRAIN, 1)
    host.sweep()
    rows = host.rows()
    host.accounting.close()
    (host.folder / FILE).write_bytes(b"damaged" * 999)
    host.restart()
    report = Reconciler(host.life.host.world(), host.config).run()
    assert "not a database" in host.accounting.record_pass(report)
    host.sweep()
    assert_agrees(host.rows(), rows)
    assert (host.folder / f"{FILE}.broken").exists()


def test_what_nobody_expects_is_a_warning_and_ends_no_pass(
    host: Accounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.sweep()
    nothing: dict[str, str] = {}
    monkeypatch.setattr(Accounts, "observe", lambda *_, **__: nothing["nobody"])
    report = Reconciler(host.life.host.world(), host.config).run()
    assert host.accounting.record_pass(report) == "the accounting failed: KeyError: 'nobody'"
    monkeypatch.undo()
    host.book(TRAIN, 1)
    host.life.host.pass_time(31.0)
    host.sweep()
    assert_agrees(host.rows(), host.replayed())


def test_one_that_is_locked_is_a_warning_and_is_caught_up_with(host: Accounted) -> None:
    host.sweep()
    with closing(sqlite3.connect(host.folder / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        host.book(TRAIN, 1)
        host.run(TRAIN)
        report = Reconciler(host.life.host.world(), host.config).run()
        assert "database is locked" in host.accounting.record_pass(report)
        assert host.accounting.record_pass(report) == "", "it is not tried again at once"
        other.execute("ROLLBACK")
    host.life.host.pass_time(31.0)
    host.sweep()
    assert_agrees(host.rows(), host.replayed())


def test_a_container_with_docker_as_the_books_is_booked_from_its_start_on(tmp_path: Path) -> None:
    host = Accounted(tmp_path)
    host.config = with_docker_books(host.config)
    host.life.config, host.life.host.state = host.config, books(digest="0")
    host.restart()
    host.sweep()
    host.life.host.pass_time(30.0)
    host.life.run("MIG-1-0", created_ago=3.0, started_ago=2.0, labels={"ds01.user": "alice"})
    host.sweep()
    host.watch(3)
    (booked,) = host.rows()
    assert (booked.container, booked.slot, booked.end) == (NAME, "1.0", None)
    assert booked.begin == pytest.approx(WALL + 27.25, abs=0.1)
    host.life.remove()
    host.watch(3)
    (booked,) = host.rows()
    assert booked.why == "not-entered"
    assert booked.end == pytest.approx(WALL + 30.25 + 180.75 + 60.25, abs=70.0)
    host.accounting.close()


def test_a_change_that_was_begun_and_never_closed_holds_nothing_up(host: Accounted) -> None:
    host.sweep()
    host.life.host.history.append(
        b'{"id": "x-1", "at": "2027-01-15T08:00:00+00:00", "phase": "begin"}'
    )
    host.book(TRAIN, 1)
    host.config = msgspec.structs.replace(host.config, daemon=DaemonConfig(mode="observe"))
    host.sweep()
    host.restart()
    host.sweep()
    assert [(row.container, row.why) for row in host.rows()] == [(TRAIN, "")]
