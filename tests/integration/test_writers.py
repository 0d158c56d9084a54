"""Others write the state in place, without a lock, while ds01d repairs: nothing of theirs is lost.

They lose each other's bookings; that is theirs, and told apart by what each of them noted.
DS01D_WRITERS_COUNT sets how many writes of theirs a fight has at least.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ds01d.adapters.books import state_file
from ds01d.adapters.books.late_writers import ReplacedFiles
from ds01d.adapters.books.state_file import StateFile
from ds01d.adapters.books.state_format import parse_state
from ds01d.config_values import Seconds
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.drift import Kind, Outcome
from ds01d.model.primitives import Unknown
from ds01d.reconcile.report import Report
from simulation.fake_engine import FakeEngine, request
from simulation.nvml import prod4
from tests.support.daemon import RunningDaemon, Site
from tests.support.scripts import start
from tests.support.simulated_host import SimulatedHost, released, slot_entry
from tests.support.writers import (
    LOCKED,
    SHELL,
    Note,
    OurWrite,
    lost,
    notes_in,
    unlocked_writers,
)

WRITES = int(os.environ.get("DS01D_WRITERS_COUNT", "250"))
DEADLINE_S = 240.0
SIZE = 4000  # below a page: what a writer writes goes out with one write(2)
SETTLE_S = 0.5


class Recorded(StateFile):
    """The state file, with notes of what ds01d writes."""

    writes: list[OurWrite]
    texts: dict[str, bytes | None]

    def read(self) -> AllocatorState | Unreadable | Unknown:
        state = super().read()
        if isinstance(state, AllocatorState):
            self.texts[state.digest] = self._good
        return state

    def _replace_state(self, folder: int, base: bytes, data: bytes) -> None:
        begun = time.monotonic()
        super()._replace_state(folder, base, data)
        state = parse_state(data, "what ds01d writes")
        names = frozenset(name for slot in state.slots.values() for name in slot.containers)
        done = time.monotonic()
        self.writes.append(OurWrite(begun=begun, done=done, names=names, digest=state.digest))


Keep = Callable[[ReplacedFiles, int, int, bytes], None]


def slowly(keep: Keep) -> Keep:
    """Stretch the moment between the last look at the file and its rename, as a busy host does.

    Whoever opens the file in that moment writes into the replaced one.
    """

    def kept(self: ReplacedFiles, folder: int, descriptor: int, base: bytes) -> None:
        keep(self, folder, descriptor, base)
        time.sleep(0.02)

    return kept


class Fight:
    """ds01d among writers: passes without a pause, containers that come and go meanwhile."""

    def __init__(self, host: SimulatedHost) -> None:
        self.host = host
        self.reports: list[Report] = []
        self.digests: set[str] = set()
        self._numbers = itertools.count()
        self._jobs: list[str] = []
        self._turns = 0
        self._changed_at = 0.0
        self._turned_at = time.monotonic()

    @property
    def ours(self) -> list[OurWrite]:
        return Recorded.writes

    def go_on(self, enough: Callable[[], bool]) -> None:
        """Fight until enough has happened, however long that takes on this machine."""
        end = time.monotonic() + DEADLINE_S
        while not enough():
            assert time.monotonic() < end, "this is no fight"
            for _ in range(10):
                self.turn()

    @property
    def taken(self) -> set[str]:
        """Whose bookings ds01d has taken away."""
        return {name for report in self.reports for name, _ in released(report)}

    def turn(self) -> Report:
        """Perhaps start or remove a container; then a pass."""
        if time.monotonic() > self._changed_at + 0.15:
            self._changed_at = time.monotonic()
            self._come_and_go()
        now = time.monotonic()
        report = self.host.sweep(after_s=now - self._turned_at)  # a fight takes its time
        self._turned_at = now
        seen = report.decision.snapshot.state
        if isinstance(seen, AllocatorState):
            self.digests.add(seen.digest)
        self.reports.append(report)
        return report

    def _come_and_go(self) -> None:
        if len(self._jobs) < 6:
            number = next(self._numbers)
            uuids = [slot["uuid"] for slot in SLOTS.values()]
            self._jobs.append(f"job{number}._.1001")
            self.host.run(self._jobs[-1], uuids[number % len(uuids)], ago_s=0)
        else:
            self.host.engine.containers.remove(self._jobs.pop(0))

    def settled(self) -> None:
        """Make passes until nothing is left to do."""
        for _ in range(60):
            if self.turn_quietly().is_consistent:
                return
        raise AssertionError([(str(d.drift.kind), d.reason) for d in self.reports[-1].drifts])

    def turn_quietly(self) -> Report:
        self.reports.append(self.host.sweep(after_s=SETTLE_S))
        return self.reports[-1]

    def done(self, kind: Kind) -> list[str]:
        return [
            one.drift.reason
            for report in self.reports
            for one in report.drifts
            if one.drift.kind is kind and one.outcome is Outcome.DONE
        ]

    def living(self) -> set[str]:
        return set(self._jobs)


SLOTS = {f"1.{n}": slot_entry(f"1.{n}", prod4().slots()[f"1.{n}"]) for n in range(4)}


@pytest.fixture
def fight(simulated_host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fight]:
    host = simulated_host
    monkeypatch.setattr(state_file, "StateFile", Recorded)
    monkeypatch.setattr(ReplacedFiles, "keep_replaced", slowly(ReplacedFiles.keep_replaced))
    Recorded.writes, Recorded.texts = [], {}
    host.configure(
        gpu={"source": "none"},
        books={"lock_timeout_s": Seconds(5)},
        policy={
            "settle_s": Seconds(SETTLE_S),
            "absence_grace_s": Seconds(SETTLE_S),
            "pace_count": 1_000_000,
        },
    )
    host.write_state(SLOTS)
    yield Fight(host)
    left = [path.name for path in host.books.iterdir() if path.name.startswith(".ds01d-tmp")]
    assert left == []


def check_reads(fight: Fight, notes: list[Note], first: str) -> None:
    """Every state that a decision rests on is one that somebody wrote, whole."""
    whole = {note.digest for note in notes} | {write.digest for write in fight.ours} | {first}
    assert {digest: Recorded.texts[digest] for digest in fight.digests - whole} == {}


def fought(fight: Fight, notes: list[Note]) -> bool:
    """They wrote, also into files that were just replaced, and ds01d did its work meanwhile."""
    late = {name for note in notes if note.late for name in note.added}
    return (
        len(notes) > WRITES
        and len(fight.ours) > WRITES / 10
        and bool(late & {name for write in fight.ours for name in write.names})
        and any(name.startswith("job") for name in fight.taken)
    )


@pytest.mark.timeout(300)
def test_six_writers_without_a_lock_lose_nothing_by_ds01d(fight: Fight, tmp_path: Path) -> None:
    host = fight.host
    state = fight.turn().decision.snapshot.state
    assert isinstance(state, AllocatorState)
    notes_at = tmp_path / "writers"
    with unlocked_writers(6, host.state, host.metadata, notes_at, size=SIZE, pause_s=0.15):
        fight.go_on(lambda: fought(fight, notes_in(notes_at)))
    fight.settled()
    notes = notes_in(notes_at)
    final = host.booked().keys()
    check_reads(fight, notes, state.digest)
    assert lost(notes, fight.ours, final) == []
    assert fight.done(Kind.UNREADABLE_STATE) == []
    assert not list(host.own.glob("gpu-state.broken*"))
    assert {name for name in fight.taken if name.startswith("w")} == set(), "being created"
    assert host.gpus().keys() == SLOTS.keys()
    assert fight.living() <= final
    # When all that they began is over, only what lives is left. Passes are made meanwhile: time in
    # which nobody looked would count for no wait.
    host.sweeps(*[100.0] * 11)
    fight.settled()
    assert host.booked().keys() == fight.living()
    assert {path.stem for path in host.metadata.glob("*.json")} == fight.living()


@pytest.mark.timeout(300)
def test_a_long_document_that_grows_piece_by_piece_is_never_taken_for_a_whole_one(
    fight: Fight, tmp_path: Path
) -> None:
    host = fight.host
    many = {
        f"{gpu}.{mig}": slot_entry(f"{gpu}.{mig}", f"MIG-{gpu}-{mig}")
        for gpu in range(1, 9)
        for mig in range(7)
    }
    host.write_state({**SLOTS, **many, **SLOTS})
    state = fight.turn().decision.snapshot.state
    assert isinstance(state, AllocatorState)
    with unlocked_writers(1, host.state, host.metadata, tmp_path / "w", size=0, pause_s=0.05):
        fight.go_on(lambda: len(notes_in(tmp_path / "w")) > 20)
    fight.settled()
    notes = notes_in(tmp_path / "w")
    check_reads(fight, notes, state.digest)
    assert lost(notes, fight.ours, host.booked().keys()) == []
    assert fight.done(Kind.UNREADABLE_STATE) == []


@pytest.mark.timeout(300)
def test_writers_that_break_the_file_between_them_find_it_mended(
    fight: Fight, tmp_path: Path
) -> None:
    """Documents of different lengths, one over the other, are no JSON, and stay so.

    Whatever is rebuilt was broken for the settle time, and is kept.
    """
    host = fight.host
    fight.turn()  # nothing is rebuilt of a file that was never seen whole
    with unlocked_writers(6, host.state, host.metadata, tmp_path / "w", size=0, pause_s=0.01):
        fight.go_on(lambda: len(notes_in(tmp_path / "w")) > WRITES)
    fight.settled()
    for path in host.own.glob("gpu-state.broken*"):
        with pytest.raises(ValueError, match=r"."):
            json.loads(path.read_bytes())
    assert host.gpus().keys() == SLOTS.keys()
    assert fight.living() <= host.booked().keys()
    for report in fight.reports:
        done = [d for d in report.drifts if d.outcome is Outcome.DONE]
        assert not {d.drift.kind for d in done} > {Kind.UNREADABLE_STATE}, "alone, or not at all"


# --- writers that take the lock -----------------------------------------------------------------


def test_two_writers_with_the_lock_lose_nothing_at_all(fight: Fight) -> None:
    host = fight.host
    running = [start(LOCKED, host.state, host.own, who, 40) for who in ("first", "second")]
    while any(process.poll() is None for process in running):
        fight.turn()
    for process in running:
        process.communicate()
        assert process.returncode == 0
    wanted = {f"{who}{number}._.1001" for who in ("first", "second") for number in range(40)}
    assert wanted <= host.booked().keys()
    fight.settled()
    assert wanted <= host.booked().keys()


def test_a_shell_script_takes_the_lock_with_flock(fight: Fight) -> None:
    host = fight.host
    fight.turn()
    shell = subprocess.Popen(["/bin/sh", "-c", SHELL, "sh", str(host.state), "15"])
    while shell.poll() is None:
        fight.turn()
    assert shell.returncode == 0
    assert {f"shell{number}._.1001" for number in range(1, 16)} <= host.booked().keys()
    assert fight.done(Kind.UNREADABLE_STATE) == []


def test_who_holds_the_lock_for_too_long_is_named_and_then_it_goes_on(fight: Fight) -> None:
    host = fight.host
    host.configure(books={"lock_timeout_s": Seconds(0.2)})
    host.run("job._.1001", SLOTS["1.2"]["uuid"], ago_s=0)
    host.sweep()
    before = host.bytes_of_books()
    lock = f"{host.state}.lock"
    holder = subprocess.Popen(["flock", lock, "sleep", "60"], start_new_session=True)
    try:
        wait_until_taken(lock)
        report = host.sweep(after_s=1)
        (failed,) = [one for one in report.drifts if one.outcome is Outcome.FAILED]
        assert re.search(rf"gpu-state.json.lock was not free .* pid {holder.pid} ", failed.reason)
        assert "flock" in failed.reason
        assert "sleep" in failed.reason
        assert not report.is_consistent
        assert host.bytes_of_books() == before
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
    host.sweep(after_s=1)
    assert host.booked() == {"job._.1001": {"1.2"}}


def test_the_daemon_says_in_its_log_who_holds_the_lock(
    tmp_path: Path, fake_engine: FakeEngine
) -> None:
    site = Site(tmp_path, fake_engine.url)
    site.configure(books={"lock_timeout": "200ms"})
    holder = None
    with RunningDaemon(site) as daemon:
        lock = f"{site.state}.lock"
        holder = subprocess.Popen(["flock", lock, "sleep", "60"], start_new_session=True)
        try:
            wait_until_taken(lock)
            labels = {"aime.mlc": "alice", "ds01.managed": "true"}
            devices = [request(site.uuid("1.2"))]
            fake_engine.containers.add("job._.1001", labels=labels, requests=devices)
            failed = daemon.wait_for("drift.failed", container="job._.1001")
            assert f"pid {holder.pid} " in failed["reason"]
            assert site.bookings() == set()
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
            holder.wait()
        daemon.booked(("job._.1001", "1.2"))


def wait_until_taken(lock: str) -> None:
    """Wait until somebody else holds the lock."""
    end = time.monotonic() + 20
    while subprocess.run(["flock", "--nonblock", lock, "true"], check=False).returncode == 0:
        assert time.monotonic() < end
        time.sleep(0.01)
