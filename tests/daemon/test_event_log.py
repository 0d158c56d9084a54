"""The operations log of the daemon: every event once, in order, whoever else writes and repeats."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.books.operations_format import parse_line
from ds01d.adapters.books.operations_log import OperationsLog
from ds01d.daemon.event_log import RETRY_S, EventLog
from ds01d.daemon.missed_events import OUTCOME_S, WAIT_S
from ds01d.daemon.pending_events import QUICK_S
from ds01d.errors import WriteFailed
from ds01d.model.actor import Actor
from ds01d.model.books import LogLine
from ds01d.model.containers import Container, EngineIdentity, State
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Wall
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import Life
from tests.support.world import Host

LABELS = {"ds01.managed": "true", "ds01.user": "ann", "ds01.gpu.allocated": "1.2"}
BOX = ContainerName("box")
NOON = Wall(1_800_000_000.0)
ID = "0123456789abcdef" * 4


@dataclass
class Event:
    action: str
    name: ContainerName | None = BOX
    labels: Mapping[str, str] = field(default_factory=lambda: LABELS)
    at: Wall = NOON

    @property
    def id(self) -> ContainerId:
        if self.name in {None, BOX}:
            return ContainerId(ID)
        return ContainerId(hashlib.sha256(str(self.name).encode()).hexdigest())


def other(operation: str, at: float, name: str = "box", status: str = "success") -> LogLine:
    """A line as a wrapper writes it."""
    return LogLine(
        at=Wall(float(int(at))),
        operation=operation,
        user="ann",
        container=name,
        gpu="1.2",
        status=status,
        details="a wrapper",
    )


class Bench:
    """An event log over a real file, and a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 100.0
        self.start_again()

    def start_again(self) -> None:
        """A new process: nothing is known but the file."""
        self.log = OperationsLog(self.path)
        self.events = EventLog(self.log, self.wall, lambda: Boot(self.now))

    def wall(self) -> Wall:
        return Wall(NOON + self.now)

    def happen(
        self, action: str, name: ContainerName = BOX, labels: Mapping[str, str] = LABELS
    ) -> Event:
        """An event of this moment, heard at once."""
        event = Event(action, name, labels, at=self.wall())
        self.events.on_event(event)
        return event

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        assert self.events.write_due() == ""

    def lines(self) -> list[LogLine]:
        text = self.path.read_text() if self.path.exists() else ""
        return [line for one in text.splitlines() if (line := parse_line(one)) is not None]

    def written(self, after_s: float = WAIT_S) -> list[tuple[str, str]]:
        self.pass_time(after_s)
        return [(line.operation, line.container) for line in self.lines()]

    def sequence(self, after_s: float = WAIT_S) -> list[str]:
        return [operation for operation, _ in self.written(after_s)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "container-operations.log")


# --- every event, once ------------------------------------------------------------------------


def test_an_event_waits_for_its_wrapper_and_is_written_then(bench: Bench) -> None:
    assert bench.events.wait_s() == inf
    bench.happen("start")
    bench.happen("die", ContainerName("other"))
    assert bench.events.wait_s() == WAIT_S
    assert bench.written(WAIT_S / 2) == []
    assert bench.events.wait_s() == WAIT_S / 2
    assert bench.written() == [("start", "box"), ("stop", "other")]
    line = bench.lines()[0]
    assert (line.user, line.gpu, line.status) == ("ann", "1.2", "success")


def test_a_line_has_the_time_of_its_event_and_says_exactly_which_one_it_was(bench: Bench) -> None:
    bench.now = 100.25
    bench.happen("die")
    bench.written()
    [line] = bench.lines()
    assert line.at == NOON + 100
    assert line.details == (
        "ds01d: Docker event die of 0123456789ab at 2027-01-15T08:01:40.250000Z"
    )


def test_start_stop_start_within_seconds_ends_with_start(bench: Bench) -> None:
    for action in ("start", "die", "start"):
        bench.happen(action)
        bench.pass_time(4)
    assert bench.sequence() == ["start", "stop", "start"]


def test_run_remove_run_remove_are_six_lines(bench: Bench) -> None:
    for _ in range(2):
        for action in ("start", "die", "destroy"):
            bench.happen(action)
            bench.now += 0.1
    assert bench.sequence() == ["start", "stop", "remove"] * 2


def test_what_is_heard_again_is_written_once(bench: Bench) -> None:
    """A stream that is opened again repeats what it told before."""
    events = [bench.happen(action) for action in ("start", "die")]
    assert bench.sequence() == ["start", "stop"]
    for event in events:
        bench.events.on_event(event)
    assert bench.sequence() == ["start", "stop"]


def test_also_by_the_next_process_which_knows_the_file_alone(bench: Bench) -> None:
    events = [bench.happen(action) for action in ("start", "die")]
    assert bench.sequence() == ["start", "stop"]
    bench.start_again()
    for event in (*events, Event("start", at=bench.wall())):
        bench.events.on_event(event)
    assert bench.sequence() == ["start", "stop", "start"]


# --- other writers ----------------------------------------------------------------------------


def test_what_a_wrapper_has_logged_is_not_logged_again(bench: Bench) -> None:
    bench.happen("destroy")
    bench.happen("destroy", ContainerName("other"))
    bench.log.append(other("remove", bench.wall()))
    assert bench.written() == [("remove", "box"), ("remove", "other")]


def test_a_wrappers_line_stands_for_one_event(bench: Bench) -> None:
    """Stopped by the wrapper, started and stopped again by hand."""
    bench.happen("die")
    bench.log.append(other("stop", bench.wall()))
    bench.now += 0.5
    bench.happen("start")
    bench.now += 0.5
    bench.happen("die")
    assert bench.sequence() == ["stop", "start", "stop"]


def test_an_event_is_written_before_the_next_of_its_container(bench: Bench) -> None:
    """Started by hand, then stopped by a wrapper, whose line is there at once."""
    bench.happen("start")
    bench.now += 1
    bench.happen("die")
    assert bench.events.wait_s() == 0
    bench.pass_time(0.0)
    bench.log.append(other("stop", bench.wall()))
    assert bench.sequence() == ["start", "stop"]


def test_the_last_line_is_the_last_events_also_if_a_wrapper_was_quicker(bench: Bench) -> None:
    bench.happen("start")
    bench.now += 1
    bench.happen("die")
    bench.log.append(other("stop", bench.wall()))
    assert bench.sequence() == ["stop", "start", "stop"]


@pytest.mark.parametrize("status", ["failed", "pending", "error"])
def test_what_a_wrapper_failed_at_was_done_by_somebody_else(bench: Bench, status: str) -> None:
    bench.log.append(other("stop", bench.wall(), status=status))
    bench.happen("die")
    assert bench.sequence() == ["stop", "stop"]


def test_a_line_is_used_once_also_when_the_log_is_rotated_in_between(bench: Bench) -> None:
    bench.happen("die")
    bench.log.append(other("stop", bench.wall()))
    assert bench.sequence() == ["stop"]
    bench.path.rename(f"{bench.path}.1")
    bench.happen("die")
    assert bench.sequence() == ["stop"]
    assert bench.lines()[0].details.startswith("ds01d: Docker event die")


def test_lines_stay_in_the_order_of_time(bench: Bench) -> None:
    """Somebody logs about another container while an event waits."""
    bench.happen("die")
    bench.now += 2
    bench.log.append(other("create_start", bench.wall(), "new", "pending"))
    bench.pass_time(WAIT_S)
    lines = bench.lines()
    assert [line.operation for line in lines] == ["create_start", "stop"]
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    assert "at 2027-01-15T08:01:40.000000Z" in lines[1].details


def test_a_line_from_the_future_moves_nothing(bench: Bench) -> None:
    bench.log.append(other("start", bench.wall() + 3600, "other"))
    bench.happen("die")
    bench.pass_time(WAIT_S)
    assert bench.lines()[-1].at == NOON + 100


def test_what_ds01d_does_comes_after_the_events_that_led_to_it(bench: Bench) -> None:
    bench.happen("destroy")
    bench.happen("die", ContainerName("other"))
    actor = Actor(uid=990, login="ds01d", pid=7)
    release = replace(other("release", bench.wall()), details="stale", actor=actor)
    bench.events.append(release)
    assert bench.written(0.0) == [("remove", "box"), ("release", "box")]
    assert bench.lines()[1].details == "stale; by ds01d (uid 990, pid 7)"
    assert bench.written() == [("remove", "box"), ("release", "box"), ("stop", "other")]


def test_a_quick_wrapper_costs_no_second_line_where_more_follows(bench: Bench) -> None:
    """Started by hand, stopped by a wrapper and removed at once: the last line is right anyway."""
    bench.happen("start")
    bench.happen("die")
    bench.log.append(other("stop", bench.wall()))
    bench.pass_time(0.0)
    bench.now += 0.1
    bench.happen("destroy")
    assert sorted(bench.sequence()) == ["remove", "start", "stop"]
    assert bench.lines()[-1].operation == "remove"


# --- a property -------------------------------------------------------------------------------

NAMES = [ContainerName(name) for name in ("box", "cup", "jar")]
steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "die", "destroy"]),
        st.sampled_from(NAMES),
        st.floats(0.0, 8.0),  # until the next one
        st.one_of(st.none(), st.floats(0.02, 0.9 * QUICK_S)),  # a wrapper logs it, so much later
        st.booleans(),  # it is heard twice
        st.sampled_from(["", "", "", "restart", "rotate"]),
    ),
    max_size=12,
)


Step = tuple[str, ContainerName, float, float | None, bool, str]
Moment = tuple[float, Event | LogLine | str]
OPERATION = {"start": "start", "die": "stop", "destroy": "remove"}


def moments_of(steps: Sequence[Step], began: float) -> Iterator[Moment]:
    """What happens when: events, some of them twice, lines of wrappers, restarts, a rotation.

    A wrapper logs before anything else happens to its container.
    """
    times = list(accumulate((max(step[2], 0.01) for step in steps), initial=began))[1:]
    for number, (action, name, pause, delay, twice, upset) in enumerate(steps):
        now = times[number]
        event = Event(action, name, at=Wall(NOON + now))
        yield now, event
        if twice:
            yield now + 2 * pause, event
        if upset:
            yield now + WAIT_S + 0.5, upset
        if delay is not None:
            later = zip(times[number + 1 :], steps[number + 1 :], strict=True)
            next_s = next((at - now for at, step in later if step[1] == name), inf)
            at = now + min(delay, 0.9 * next_s)
            yield at, other(OPERATION[action], NOON + at, name)


class Story:
    """Moments, played."""

    def __init__(self, bench: Bench, moments: Iterable[Moment]) -> None:
        self.bench = bench
        self.moments = sorted(moments, key=lambda one: one[0])
        self.events: list[Event] = []
        self.rotated: list[str] = []

    def play(self) -> list[LogLine]:
        """All of them; the lines that are there then."""
        bench = self.bench
        for at, what in self.moments:
            while (wait_s := bench.events.wait_s()) + bench.now < at:
                bench.pass_time(wait_s)
            bench.now = at
            self.do(what)
        bench.pass_time(WAIT_S)
        bench.events.write_due(at_once=True)
        texts = self.rotated + (bench.path.read_text().splitlines() if bench.path.exists() else [])
        return [line for text in texts if (line := parse_line(text)) is not None]

    def do(self, what: Event | LogLine | str) -> None:
        bench = self.bench
        if isinstance(what, Event):
            self.events.append(what)
            bench.events.on_event(what)
        elif isinstance(what, LogLine):
            bench.log.append(what)
        elif what == "restart":
            self.restart()
        elif bench.path.exists() and not self.rotated:
            bench.events.write_due()
            self.rotated += bench.path.read_text().splitlines()
            bench.path.rename(f"{bench.path}.1")

    def restart(self) -> None:
        """Another process, which is told of the last events again."""
        now = self.bench.now
        if any(now < at <= now + 2 and isinstance(what, LogLine) for at, what in self.moments):
            return  # who stops writes at once, and cannot wait for that line
        self.bench.events.write_due(at_once=True)
        self.bench.start_again()
        for event in self.events:
            if event.at > self.bench.wall() - 50:
                self.bench.events.on_event(event)


@given(steps=steps)
def test_the_log_is_the_events_once_each_and_in_order(
    steps: Sequence[Step], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is repeated, rotated or restarted, and whoever else logs some of it."""
    bench = Bench(tmp_path_factory.mktemp("log") / "operations.log")
    lines = Story(bench, moments_of(steps, bench.now)).play()
    for name in NAMES:
        assert [line.operation for line in lines if line.container == name] == [
            OPERATION[step[0]] for step in steps if step[1] == name
        ]
    assert [line.at for line in lines] == sorted(line.at for line in lines)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["start", "die", "destroy"]), st.sampled_from(NAMES)), max_size=40
    ),
    copies=st.lists(st.integers(0, 39), max_size=40),
)
def test_without_other_writers_the_log_has_the_very_sequence(
    steps: Sequence[tuple[str, ContainerName]],
    copies: Sequence[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    bench = Bench(tmp_path_factory.mktemp("log") / "operations.log")
    events: list[Event] = []
    for action, name in steps:
        bench.now += QUICK_S + 0.1
        events.append(bench.happen(action, name))
        bench.events.write_due()
    for number in copies:
        for event in events[number : number + 1]:
            bench.events.on_event(event)
    bench.pass_time(WAIT_S)
    assert [(line.operation, line.container) for line in bench.lines()] == [
        (OPERATION[action], name) for action, name in steps
    ]


# --- creations --------------------------------------------------------------------------------


def test_a_pending_creation_ends_when_its_labelled_container_is_created(bench: Bench) -> None:
    bench.log.append(other("create_start", bench.wall(), status="pending"))
    bench.now += 60
    bench.happen("create", labels={})
    bench.happen("start", ContainerName("box"), {})  # the wrapper's own steps
    bench.happen("die", ContainerName("box"), {})
    bench.pass_time(WAIT_S)
    bench.happen("create")
    assert bench.sequence() == ["create_start", "create_success"]
    assert bench.events.read() == {}, "nothing is pending any more"


def test_container_create_logs_its_own_end(bench: Bench) -> None:
    begun = replace(other("create_start", bench.wall(), status="pending"))
    bench.log.append(replace(begun, details="container-create: pytorch"))
    bench.happen("create")
    bench.happen("start")
    assert bench.sequence(WAIT_S + 1) == ["create_start", "start"]
    bench.log.append(other("create_success", bench.wall()))
    assert bench.sequence() == ["create_start", "start", "create_success"]


def test_a_creation_that_nobody_began_ends_without_a_line(bench: Bench) -> None:
    bench.happen("create")
    assert bench.sequence() == []


# --- what the stream did not deliver ----------------------------------------------------------


@dataclass
class Sweeps:
    """Sweeps of a host in memory, compared with a real log; both have the bench's clock."""

    bench: Bench
    host: Host

    def add(self, **facts: object) -> Container:
        times = {
            key: self.bench.wall() - float(str(age)) for key, age in facts.items() if key in AGES
        }
        rest = {key: value for key, value in facts.items() if key not in AGES}
        container = Container(
            **{"id": ID, "name": BOX, "labels": LABELS, "state": State.RUNNING, **rest, **times}  # type: ignore[arg-type]
        )
        self.host.run(container)
        return container

    def report(self) -> Report:
        self.host.wall, self.host.boot = self.bench.wall(), self.bench.now
        return Reconciler(self.host.world(), Life().config).run()

    def sweep(self, grace_s: float = 30.0) -> list[str]:
        assert self.bench.events.add_missing_lines(self.report(), grace_s) == ""
        return [line.operation for line in self.bench.lines()]


AGES = frozenset({"created", "started", "finished"})


@pytest.fixture
def sweeps(bench: Bench) -> Sweeps:
    bench.now = 10_000.0
    bench.start_again()
    return Sweeps(bench, Host())


def test_a_container_that_runs_after_a_stop_was_started(sweeps: Sweeps) -> None:
    bench = sweeps.bench
    bench.happen("die")
    assert bench.sequence() == ["stop"]
    bench.now += 100
    sweeps.add(started=20.5, finished=103)
    assert sweeps.sweep() == ["stop", "start"]
    line = bench.lines()[-1]
    assert float(line.at) == int(bench.wall() - 20.5)
    assert line.details.startswith("ds01d: no event received; StartedAt of 0123456789ab is 2027-")
    assert sweeps.sweep() == ["stop", "start"], "once"


def test_one_that_stopped_unheard_was_stopped(sweeps: Sweeps) -> None:
    bench = sweeps.bench
    bench.happen("start")
    assert bench.sequence() == ["start"]
    bench.now += 100
    sweeps.add(state=State.EXITED, started=103, finished=50)
    assert sweeps.sweep() == ["start", "stop"]


def test_one_that_was_restarted_unheard_was_stopped_and_started(sweeps: Sweeps) -> None:
    bench = sweeps.bench
    bench.happen("start")
    assert bench.sequence() == ["start"]
    bench.now += 100
    sweeps.add(started=40, finished=50)
    assert sweeps.sweep() == ["start", "stop", "start"]
    assert [line.at for line in bench.lines()[1:]] == [bench.wall() - 50, bench.wall() - 40]


def test_an_event_that_comes_late_is_what_was_added_already(sweeps: Sweeps) -> None:
    bench = sweeps.bench
    bench.happen("die")
    bench.pass_time(WAIT_S)
    bench.now += 30
    began = bench.wall() - 10
    sweeps.add(started=10)
    assert sweeps.sweep() == ["stop", "start"]
    bench.events.on_event(Event("start", at=Wall(began + 0.2)))
    assert bench.sequence() == ["stop", "start"]


def test_what_began_before_the_log_is_left_alone(sweeps: Sweeps) -> None:
    sweeps.add(started=5000)
    assert sweeps.sweep() == []


def test_what_began_while_ds01d_was_down_is_added(sweeps: Sweeps) -> None:
    bench = sweeps.bench
    bench.happen("start", ContainerName("other"))
    assert bench.sequence() == ["start"]
    bench.now += 1000
    bench.start_again()
    sweeps.add(started=500)
    assert sweeps.sweep() == ["start", "start"]
    assert bench.lines()[1].container == "box"


def test_what_happens_just_now_is_left_to_its_event(sweeps: Sweeps) -> None:
    sweeps.bench.happen("die")
    sweeps.bench.pass_time(WAIT_S)
    sweeps.add(started=1)
    assert sweeps.sweep() == ["stop"]


def test_one_that_is_gone_unheard_was_removed(sweeps: Sweeps) -> None:
    bench = sweeps.bench
    sweeps.add(started=1)
    bench.happen("start")
    assert bench.sequence() == ["start"]
    bench.now += 50
    assert sweeps.sweep() == ["start"]
    sweeps.host.remove("box", told=False)
    assert sweeps.sweep() == ["start"]
    bench.now += 29
    assert sweeps.sweep() == ["start"]
    bench.now += 2
    assert sweeps.sweep() == ["start", "stop", "remove"]
    bench.now += 100
    assert sweeps.sweep() == ["start", "stop", "remove"]


def test_another_engine_proves_no_removal(sweeps: Sweeps) -> None:
    bench = sweeps.bench
    sweeps.add(started=1)
    bench.happen("start")
    assert bench.sequence() == ["start"]
    assert sweeps.sweep() == ["start"]
    sweeps.host.remove("box", told=False)
    sweeps.host.identity = EngineIdentity(id="OTHER", root_dir="/elsewhere", inode=1, device=1)
    for _ in range(5):
        bench.now += 60
        assert sweeps.sweep() == ["start"]


@pytest.mark.parametrize(
    ("writer", "after_s"), [("mlc", 2 * WAIT_S), ("container-create", OUTCOME_S)]
)
def test_a_creation_whose_container_is_there_was_a_success(
    sweeps: Sweeps, writer: str, after_s: float
) -> None:
    bench = sweeps.bench
    begun = other("create_start", bench.wall(), status="pending")
    bench.log.append(replace(begun, details=f"{writer}: pytorch"))
    bench.now += 5
    created = bench.wall()
    sweeps.add(state=State.CREATED, created=0)
    bench.now += after_s - 1
    assert sweeps.sweep() == ["create_start"]
    bench.now += 2
    assert sweeps.sweep() == ["create_start", "create_success"]
    assert bench.lines()[1].at == created
    assert bench.events.read() == {}


def test_an_older_container_of_that_name_says_nothing_of_a_creation(sweeps: Sweeps) -> None:
    bench = sweeps.bench
    sweeps.add(created=100, started=90)
    bench.log.append(other("create_start", bench.wall(), status="pending"))
    bench.now += 600
    assert sweeps.sweep() == ["create_start"]


# --- the rest ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        Event("exec_start"),
        Event("start", None),
        Event("start", labels={"com.example": "of somebody else"}),
    ],
    ids=["of no interest", "without a name", "of no DS01 container"],
)
def test_other_events_are_worth_no_line(bench: Bench, event: Event) -> None:
    bench.events.on_event(event)
    assert bench.events.wait_s() == inf
    assert bench.written() == []


def test_a_ds01_name_is_enough(bench: Bench) -> None:
    bench.happen("start", ContainerName("train._.1001"), {})
    assert bench.written() == [("start", "train._.1001")]


def test_thousands_are_written_in_one_go_and_none_is_lost(bench: Bench) -> None:
    names = [ContainerName(f"box{number}") for number in range(9_000)]
    for name in names:
        bench.happen("start", name)
    assert bench.written() == [("start", name) for name in names]


def test_what_is_too_much_to_keep_is_said(bench: Bench) -> None:
    for number in range(10_010):
        bench.happen("start", ContainerName(f"box{number}"))
    bench.now += WAIT_S
    assert bench.events.write_due().startswith("10 events missing in the operations log")
    assert len(bench.lines()) == 10_000


def test_a_log_that_cannot_be_written_is_tried_again_and_loses_nothing(bench: Bench) -> None:
    bench.path.mkdir()
    bench.happen("start")
    bench.now += WAIT_S
    assert str(bench.path) in bench.events.write_due()
    assert bench.events.wait_s() == RETRY_S
    with pytest.raises(WriteFailed):
        bench.events.append(other("release", bench.wall()))
    bench.path.rmdir()
    bench.happen("die")
    assert bench.sequence(RETRY_S) == ["start", "stop"]


CLAIM = {"ds01.managed": "true", "ds01.user": "ann", "ds01.gpu.slots": "1.1,1.2"}


@pytest.mark.parametrize(
    ("name", "expected"), [("x._.1004", "mallory"), ("x._.1005", "unknown"), ("x", "ann")]
)
def test_the_uid_in_a_name_counts_also_before_a_pass_has_seen_its_container(
    bench: Bench, name: str, expected: str
) -> None:
    users = {1004: "mallory"}
    log, clock = bench.log, lambda: Boot(bench.now)
    bench.events = EventLog(log, bench.wall, clock, lambda _: users)
    bench.happen("start", ContainerName(name), CLAIM)
    bench.pass_time(WAIT_S)
    (line,) = bench.lines()
    assert line.user == expected


def test_a_label_that_names_no_login_names_nobody(bench: Bench) -> None:
    bench.happen("start", BOX, {"ds01.managed": "true", "aime.mlc": "ann\nforged|line"})
    bench.pass_time(WAIT_S)
    (line,) = bench.lines()
    assert line.user == "unknown"


def test_once_the_books_are_known_no_label_says_what_is_booked(sweeps: Sweeps) -> None:
    sweeps.sweep()
    sweeps.bench.happen("start", ContainerName("x._.1004"), CLAIM)
    sweeps.bench.pass_time(WAIT_S)
    assert [line.gpu for line in sweeps.bench.lines() if line.container == "x._.1004"] == ["N/A"]
