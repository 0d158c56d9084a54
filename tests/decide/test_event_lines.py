"""Lines and events: known again by their identity, and matched one to one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.event_lines import (
    AFTER_S,
    BEFORE_S,
    OPERATIONS,
    WRITER,
    ContainerEvent,
    identity_in,
    match_lines,
)
from ds01d.model.books import LogLine
from ds01d.model.primitives import ContainerId, ContainerName, Wall

NAMES = st.sampled_from([ContainerName("a"), ContainerName("b")])
MICROSECONDS = st.integers(0, 4_000_000_000_000_000)


def make_line(name: str, operation: str, at: float, details: str = "") -> LogLine:
    return LogLine(
        at=Wall(at),
        operation=operation,
        user="alice",
        container=name,
        gpu="1.0",
        status="success",
        details=details,
    )


@st.composite
def events(draw: st.DrawFn) -> ContainerEvent:
    action = draw(st.sampled_from(sorted(OPERATIONS)))
    return ContainerEvent(
        action=action,
        operation=OPERATIONS[action],
        id=ContainerId(draw(st.text("0123456789abcdef", min_size=12, max_size=64))),
        name=draw(NAMES),
        at=Wall(draw(MICROSECONDS) / 1e6),
    )


@given(events())
def test_the_identity_of_an_event_is_read_from_its_line(event: ContainerEvent) -> None:
    line = make_line("a", event.operation, event.at, f"{WRITER}: {event.identity}")
    read = identity_in(line)
    assert read is not None
    assert (read[0], read[1]) == (event.identity, event.id[:12])
    assert abs(read[2] - event.at) < 1e-5


@given(st.text())
def test_no_other_text_is_taken_for_one(details: str) -> None:
    line = make_line("a", "start", 0.0, details)
    assert identity_in(line) is None or details.startswith(WRITER)


TIMES = st.integers(0, 12).map(float)
OPERATION = st.sampled_from(["start", "stop"])


@given(
    st.lists(st.tuples(NAMES, OPERATION, TIMES), max_size=8),
    st.lists(st.tuples(NAMES, OPERATION, TIMES), max_size=8),
)
def test_a_line_stands_for_one_event_of_its_container_and_operation_near_it(
    happened: list[tuple[ContainerName, str, float]],
    logged: list[tuple[ContainerName, str, float]],
) -> None:
    them = [
        ContainerEvent(action="", operation=operation, id=ContainerId("i"), name=name, at=Wall(at))
        for name, operation, at in happened
    ]
    lines = [make_line(*line) for line in logged]
    matches = match_lines(them, lines)
    assert len(set(matches.values())) == len(matches), "one to one"
    for place, number in matches.items():
        event, line = them[place], lines[number]
        assert (event.name, event.operation) == (line.container, line.operation)
        assert -1.0 - BEFORE_S <= line.at - event.at <= AFTER_S
    for number, line in enumerate(lines):
        near = [
            place
            for place, event in enumerate(them)
            if (event.name, event.operation) == (line.container, line.operation)
            and -1.0 - BEFORE_S <= line.at - event.at <= AFTER_S
        ]
        if number not in matches.values():
            assert all(place in matches for place in near), "no line is left without a reason"
