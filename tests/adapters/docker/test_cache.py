"""What may be believed without asking again: ages in the list, facts kept over a restart, races."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.docker.cache import DockerCache
from ds01d.adapters.docker.list_status import format_age, proves_unchanged
from ds01d.adapters.docker.listing import ClockReading, Listing
from ds01d.adapters.docker.parsing import ContainerRow, EngineEvent, read_event, read_rows
from ds01d.errors import Malformed
from ds01d.model.containers import Container, GpuRequestKind, Request, State
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Unknown, Wall

NAME = ContainerName("train._.1001")
ID = ContainerId("a" * 64)
OTHER = ContainerId("b" * 64)
NOW = 1_800_000_000.0
HOUR = 3600.0

AGES = st.floats(0, 4e8)


def moment(after: float = 0.0, *, clock_set: float = 0.0) -> ClockReading:
    return ClockReading(wall=Wall(NOW + after + clock_set), boot=Boot(5000.0 + after))


def row(status: str = "Up 3 hours", **changes: object) -> ContainerRow:
    plain = ContainerRow(
        id=ID, name=NAME, state=State.RUNNING, status=status, labels={"a": "b"}, created=Wall(1.0)
    )
    return msgspec.structs.replace(plain, **changes)


def inspected(**changes: object) -> Container:
    plain = Container(
        id=ID,
        name=NAME,
        state=State.RUNNING,
        labels={"a": "b"},
        request=Request(ask=GpuRequestKind.ALL),
        started=Wall(NOW - 3 * HOUR),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def listing(after: float = 0.0, *, gapless: bool = False, clock_set: float = 0.0) -> Listing:
    at = moment(after, clock_set=clock_set)
    return Listing(asked=at, answered=at, gapless=gapless)


def event(action: str, *, container: ContainerId = ID, name: str = NAME) -> EngineEvent:
    return EngineEvent(action=action, id=container, name=ContainerName(name), at=Wall(NOW))


def cache_with(container: Container, row: ContainerRow) -> DockerCache:
    """A cache that has listed and inspected one container."""
    cache = DockerCache()
    cache.begin_list()
    cache.apply_list([row], listing())
    cache.begin_inspect(container.id)
    cache.store_inspect(container)
    assert cache.select_stale(None) == []
    return cache


def wanted_after_restart(
    seen: ContainerRow, *, after: float, known: Container | None = None, clock_set: float = 0.0
) -> bool:
    """Whether the next daemon, `after` seconds later, inspects the container that it sees so."""
    known = known or inspected()
    exported = cache_with(known, row(state=known.state)).export_bytes()
    cache = DockerCache()
    cache.restore_bytes(exported)
    cache.begin_list()
    cache.apply_list([seen], listing(after, clock_set=clock_set))
    if not cache.select_stale(None):
        assert cache.read_all()[0] == {ID: known}
        return False
    return True


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (0.4, "Less than a second"),
        (1.9, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (47.4 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (14 * 24 * HOUR, "2 weeks"),
        (61 * 24 * HOUR, "2 months"),
        (800 * 24 * HOUR, "2 years"),
    ],
)
def test_ages_are_worded_as_docker_words_them(age: float, words: str) -> None:
    assert format_age(age) == words


@given(st.lists(AGES, min_size=3, max_size=3).map(sorted))
def test_no_wording_comes_back(ages: list[float]) -> None:
    young, middle, old = map(format_age, ages)
    assert young != old or young == middle == old


@given(
    known=AGES,
    true=AGES,
    away=st.floats(0, 1e6),
    form=st.sampled_from(["Up {}", "Exited (1) {} ago"]),
)
def test_an_age_never_confirms_a_container_that_was_restarted_while_we_were_away(
    known: float, true: float, away: float, form: str
) -> None:
    """Whatever its known time was, if its true one lies within that while."""
    true = min(true, away)
    since = NOW - known
    assert not proves_unchanged(
        form.format(format_age(true)), started=since, finished=since, asked=(NOW, NOW), away_s=away
    )


@given(known=AGES, away=st.floats(0, 1e6), suffix=st.sampled_from(["", " (healthy)", " (Paused)"]))
def test_an_age_beyond_twice_the_time_away_confirms(known: float, away: float, suffix: str) -> None:
    if known > 2 * away + 60:
        asked = (NOW, NOW)
        told = f"Up {format_age(known)}{suffix}"
        assert proves_unchanged(told, started=NOW - known, finished=None, asked=asked, away_s=away)


@pytest.mark.parametrize("status", ["", "Created", "Dead", "Up", "Up  ago", "Removal In Progress"])
def test_other_words_confirm_nothing(status: str) -> None:
    assert not proves_unchanged(status, started=0.0, finished=0.0, asked=(NOW, NOW), away_s=0.0)


def test_after_a_restart_of_ours_a_container_as_old_as_known_is_not_inspected() -> None:
    assert not wanted_after_restart(row(), after=30)
    stopped = inspected(state=State.EXITED, finished=Wall(NOW - 26 * HOUR))
    told = row("Exited (0) 26 hours ago", state=State.EXITED)
    assert not wanted_after_restart(told, after=30, known=stopped)
    created = inspected(state=State.CREATED, started=None)
    assert not wanted_after_restart(row("Created", state=State.CREATED), after=30, known=created)


def test_after_a_restart_of_ours_whoever_may_have_changed_is_inspected() -> None:
    assert wanted_after_restart(row("Up 20 seconds"), after=30)
    assert wanted_after_restart(row("Up 2 hours"), after=30)
    assert wanted_after_restart(row(), after=4 * HOUR)
    assert wanted_after_restart(row(""), after=30)
    assert wanted_after_restart(row(name=ContainerName("other")), after=30)
    assert wanted_after_restart(row(state=State.PAUSED), after=30)
    assert wanted_after_restart(row(id=OTHER), after=30)


def test_a_clock_that_was_set_confirms_nothing() -> None:
    assert wanted_after_restart(row(), after=30, clock_set=-HOUR)
    assert wanted_after_restart(row(), after=-4000)


@pytest.mark.parametrize(
    "broken", [b"", b"null", b"{", b'{"version":2}', b"\xff", b'{"version":1}']
)
def test_a_broken_export_is_no_export(broken: bytes) -> None:
    cache = DockerCache()
    cache.restore_bytes(broken)
    assert cache.export_bytes() == b""


def test_what_was_not_inspected_is_not_exported() -> None:
    cache = cache_with(inspected(), row())
    cache.apply_event(event("die"), Boot(1.0))
    assert b"train" not in cache.export_bytes()


def test_with_an_unbroken_stream_the_row_alone_decides() -> None:
    cache = cache_with(inspected(), row())
    cache.begin_list()
    cache.apply_list([row("in whatever words")], listing(60, gapless=True))
    assert cache.select_stale(None) == []


def test_an_event_during_a_list_is_newer_than_the_list() -> None:
    cache = cache_with(inspected(), row())
    cache.begin_list()
    cache.apply_event(event("destroy"), Boot(1.0))
    cache.apply_event(event("create", container=OTHER, name="new"), Boot(1.0))
    cache.apply_list([row()], listing(1, gapless=True))
    assert cache.read_all()[0] == {}
    assert cache.select_stale(frozenset({ContainerName("new")})) == [OTHER]


def test_an_event_during_an_inspect_asks_for_another_one() -> None:
    cache = cache_with(inspected(), row())
    cache.apply_event(event("die"), Boot(1.0))
    cache.begin_inspect(ID)
    cache.apply_event(event("start"), Boot(2.0))
    cache.store_inspect(inspected(state=State.EXITED))
    assert cache.select_stale(frozenset({NAME})) == [ID]


def test_a_container_destroyed_during_its_inspect_stays_gone() -> None:
    cache = cache_with(inspected(), row())
    cache.begin_inspect(ID)
    cache.apply_event(event("destroy"), Boot(1.0))
    cache.store_inspect(inspected())
    containers, by_name, destroyed = cache.read_all()
    assert not containers
    assert not by_name
    assert destroyed[NAME].id == ID


def test_a_name_that_exists_again_was_not_destroyed() -> None:
    cache = cache_with(inspected(), row())
    cache.apply_event(event("destroy"), Boot(1.0))
    cache.apply_event(event("create", container=OTHER), Boot(1.0))
    assert cache.read_all()[2] == {}


def test_late_words_of_a_destroyed_container_do_not_bring_it_back() -> None:
    cache = cache_with(inspected(), row())
    cache.apply_event(event("destroy"), Boot(1.0))
    cache.apply_event(event("die"), Boot(1.0))
    assert cache.select_stale(None) == []
    assert NAME in cache.read_all()[2]


def test_a_change_that_no_event_ever_told_is_counted_as_lost() -> None:
    cache = cache_with(inspected(), row())
    for after, missed in ((1, 0), (2, 1), (3, 0)):
        cache.begin_list()
        paused = [row(state=State.PAUSED)]
        assert cache.apply_list(paused, listing(after, gapless=True)) == missed
        cache.store_inspect(inspected(state=State.PAUSED))
    assert cache.events_lost == 1


def test_an_event_that_comes_after_the_list_is_not_lost() -> None:
    cache = cache_with(inspected(), row())
    cache.begin_list()
    cache.apply_list([], listing(1, gapless=True))
    cache.apply_event(event("destroy"), Boot(1.0))
    cache.begin_list()
    assert cache.apply_list([], listing(2, gapless=True)) == 0


def test_what_cannot_be_inspected_is_known_to_be_unknown_and_tried_last() -> None:
    cache = cache_with(inspected(), row())
    cache.begin_inspect(ID)
    assert cache.store_failure(ID, "it hangs")
    request = cache.read_all()[0][ID].request
    assert isinstance(request, Unknown)
    assert request.reason == "it hangs"
    cache.apply_event(event("create", container=OTHER, name="new"), Boot(1.0))
    assert cache.select_stale(frozenset({NAME, ContainerName("new")})) == [OTHER]
    assert cache.select_stale(None) == [OTHER, ID]


def test_only_those_are_inspected_about_whom_something_is_to_be_said() -> None:
    cache = cache_with(inspected(), row())
    cache.apply_event(event("create", container=OTHER, name="new"), Boot(1.0))
    cache.apply_event(event("pause"), Boot(2.0))
    cache.apply_event(
        replace(event("rename", name="newer"), old_name=ContainerName(NAME)), Boot(3.0)
    )
    assert cache.select_stale(None) == [OTHER, ID]
    for name, those in (("new", [OTHER]), (NAME, [ID]), ("newer", [ID]), ("else", [])):
        assert cache.select_stale(frozenset({ContainerName(name)})) == those


def test_an_event_without_a_name_is_looked_after_whoever_is_asked_about() -> None:
    cache = cache_with(inspected(), row())
    cache.apply_event(replace(event("start", container=OTHER), name=None), Boot(1.0))
    assert cache.select_stale(frozenset()) == [OTHER]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Id", "Names", "State", "Created", "Type"]), inner)
    ),
    max_leaves=10,
)


@given(JSON)
def test_a_list_and_an_event_are_understood_or_malformed(told: object) -> None:
    with suppress(Malformed):
        read_rows(msgspec.json.encode(told))
    with suppress(Malformed):
        read_event(msgspec.json.encode(told))
