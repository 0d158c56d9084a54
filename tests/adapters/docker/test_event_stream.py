"""A stream of events that something in between cuts: what is bridged costs no time, the rest does.

Against a fake engine behind a proxy, so that moments can be chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ds01d.model.containers import EngineWarningKind, NotFound
from ds01d.model.primitives import ContainerName
from simulation.fake_engine import FakeEngine
from simulation.proxy import DROP, PASS, Mode, Proxy
from tests.adapters.docker.test_engine import NAME, OTHER, boot, engine_at, in_step, seen, until


@pytest.fixture
def proxy(fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy in front of the fake engine."""
    path = tmp_path_factory.mktemp("proxy") / "docker.sock"
    with Proxy(path, fake_engine.socket) as between:
        yield between


def quiet(fake_engine: FakeEngine) -> None:
    """Give the engine a past: an event that is older than any gap."""
    fake_engine.containers.remove(fake_engine.containers.add("before"))
    for event in fake_engine.containers.past(0):
        event["timeNano"] -= 60 * 10**9


def test_a_cut_that_the_engine_remembers_moves_nothing(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    quiet(fake_engine)
    with engine_at(proxy) as (docker, heard):
        since = seen(docker).since
        for number in range(1, 4):
            hold = proxy.hold("GET /events")
            proxy.cut()
            assert hold.met.wait(60)
            gone = fake_engine.containers.add(NAME)  # while no stream is open
            fake_engine.containers.remove(gone)
            hold.go.set()
            until(lambda number=number: docker.reconnects == number)  # type: ignore[misc]
            answer = seen(docker)
            assert answer.since == since
            assert answer.destroyed[NAME].id == gone
            assert heard.actions.count("destroy") == number
        assert docker.lost == 0


def test_nothing_is_proven_between_the_cut_and_the_list_after_it(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    quiet(fake_engine)
    with engine_at(proxy) as (docker, _):
        seen(docker)
        assert docker.look_up(NAME, None) == NotFound()
        hold = proxy.hold("GET /events")
        proxy.cut()
        assert hold.met.wait(60)
        assert docker.look_up(NAME, None) != NotFound()
        seen(docker)
        assert docker.look_up(NAME, None) != NotFound()
        hold.go.set()
        until(lambda: docker.reconnects == 1)
        assert docker.look_up(NAME, None) != NotFound()
        seen(docker)
        assert docker.look_up(NAME, None) == NotFound()


def test_an_engine_that_forgot_its_events_moves_since(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    """As a dockerd that was started anew behind a proxy, whose process is all that we see."""
    quiet(fake_engine)
    with engine_at(proxy) as (docker, _):
        before = seen(docker).since
        hold = proxy.hold("GET /events")
        proxy.cut()
        assert hold.met.wait(60)
        fake_engine.containers.forget_past()
        later = boot() + 1.1  # what dockerd takes to start is more than a moment
        until(lambda: boot() > later)
        hold.go.set()
        until(lambda: docker.reconnects == 1)
        assert before < seen(docker).since <= boot()


@pytest.mark.parametrize("spoilt", ["/info", "GET /events"])
def test_an_engine_that_does_not_tell_of_the_gap_moves_since(
    proxy: Proxy, fake_engine: FakeEngine, spoilt: str
) -> None:
    quiet(fake_engine)
    with engine_at(proxy) as (docker, _):
        before = seen(docker).since
        hold = proxy.hold("GET /events")
        proxy.cut()
        assert hold.met.wait(60)
        proxy.fault(spoilt, Mode.ERROR)
        hold.go.set()
        until(lambda: docker.reconnects == 1)
        proxy.clear()
        until(lambda: seen(docker).since > before)


def test_a_stream_that_keeps_being_cut_is_a_warning_until_it_lasts(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    quiet(fake_engine)
    proxy.cut_events_after_s = 0.2
    with engine_at(proxy) as (docker, _):
        since = seen(docker).since
        until(lambda: seen(docker).warnings)
        (warning,) = seen(docker).warnings
        assert warning.kind is EngineWarningKind.STREAM_CUT
        assert re.search(r"is cut every \d\.\d+ s", warning.text)
        assert "start again" not in warning.text
        assert "timeout" in warning.fix
        fake_engine.containers.add(OTHER)
        until(lambda: in_step(docker, {OTHER}))
        assert seen(docker).since == since
        proxy.cut_events_after_s = None
        until(lambda: not seen(docker).warnings, within_s=20)


def test_a_stream_that_is_refused_is_a_warning(proxy: Proxy, fake_engine: FakeEngine) -> None:
    proxy.fault("GET /events", Mode.ERROR)
    fake_engine.containers.add(NAME)
    with engine_at(proxy) as (docker, _):
        answer = seen(docker)
        (warning,) = answer.warnings
        assert warning.kind is EngineWarningKind.STREAM_REFUSED
        assert "500" in warning.text
        since = answer.since
        assert docker.look_up(ContainerName("gone"), None) == NotFound()
        tried = proxy.calls.count("GET /events") + 3
        until(lambda: proxy.calls.count("GET /events") >= tried)
        assert seen(docker).since == since  # an attempt in vain is no gap
        proxy.clear()
        until(lambda: not seen(docker).warnings)


def test_a_stream_that_loses_events_costs_no_time_where_the_engine_remembers_them(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    """As behind a proxy that holds answers back until a buffer is full."""
    quiet(fake_engine)
    with engine_at(proxy) as (docker, heard):
        since = seen(docker).since
        for number in range(1, 4):
            seen(docker)  # agrees with what was told
            proxy.on_event = lambda _: DROP
            made = fake_engine.containers.add(f"made{number}._.1001")
            assert docker.received == 2 * (number - 1)
            seen(docker)  # ahead of the stream
            seen(docker)  # and the stream has not caught up
            proxy.on_event = lambda _: PASS
            until(lambda number=number: docker.reconnects == number)  # type: ignore[misc]
            answer = seen(docker)
            assert answer.since == since
            assert made in answer.containers
            assert heard.actions == ["create", "start"] * number
        (warning,) = seen(docker).warnings
        assert warning.kind is EngineWarningKind.STREAM_LOSSY
        assert "proxy_buffering" in warning.fix
