"""DockerEngine against a real engine, a fake one, and one that spoils its answers.

No answer is ever taken for an empty one, no call lasts longer than its deadline, and after every
gap the next look is right.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ds01d.adapters.docker import event_stream, stream_bridge
from ds01d.adapters.docker.engine import DockerEngine
from ds01d.adapters.docker.engine_info import EngineInfo, read_info
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.parsing import EngineEvent
from ds01d.errors import ConfigError
from ds01d.model.containers import Container, Engine, GpuRequestKind, NotFound, Request, State
from ds01d.model.primitives import BookingId, ContainerId, ContainerName, Source, Unknown
from ds01d.model.reservation import BOOKING_LABEL
from ds01d.reconcile.ports import EnginePort
from simulation.engine import PrivateEngine
from simulation.fake_engine import FakeEngine, request
from simulation.proxy import DROP, SPOILING, Mode, Proxy
from simulation.unix_http import UnixHandler, UnixServer

TIMEOUT_S = 2.0  # of every call, also of those that are answered at once
LATE_S = TIMEOUT_S + 20.0  # with a machine that has much else to do
NAME = ContainerName("train._.1001")
INSPECT = "/containers/[0-9a-f]{64}/json"
OTHER = ContainerName("other._.1002")
BOTH = (NAME, OTHER)

DockerPort = FakeEngine | Proxy | PrivateEngine


class Heard:
    """What the listeners of an engine were told."""

    def __init__(self) -> None:
        self.names: list[frozenset[ContainerName] | None] = []
        self.events: list[EngineEvent] = []

    @property
    def actions(self) -> list[str]:
        return [event.action for event in self.events]


def until(holds: Callable[[], object], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.002)


def boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextmanager
def engine_at(
    where: DockerPort | str,
    *,
    timeout_s: float = TIMEOUT_S,
    watch: bool = True,
    idle_s: float = 15.0,
    kept: bytes = b"",
) -> Iterator[tuple[DockerEngine, Heard]]:
    heard = Heard()
    url = where if isinstance(where, str) else where.url
    docker = DockerEngine(
        url, timeout_s, boot, heard.names.append, heard.events.append, idle_s=idle_s
    )
    with closing(docker):
        docker.import_cache(kept)
        if watch:
            docker.start()
        yield docker, heard


def seen(docker: EnginePort, names: Collection[ContainerName] | None = None) -> Engine:
    answer = docker.observe(None if names is None else frozenset(names))
    assert isinstance(answer, Engine), answer
    return answer


def unknown(docker: EnginePort, names: Collection[ContainerName] | None = None) -> str:
    """Why there is no answer. The reason is a line that names the socket."""
    answer = docker.observe(None if names is None else frozenset(names))
    assert isinstance(answer, Unknown)
    assert answer.source is Source.DOCKER
    assert "unix:///" in answer.reason
    assert answer.reason.isprintable()
    return answer.reason


def in_step(docker: EnginePort, names: set[str]) -> bool:
    """Whether the cache, without a list, has exactly these containers."""
    return set(seen(docker, BOTH).by_name) == names


def current(docker: EnginePort, name: ContainerName) -> ContainerId | None:
    """The id behind a name, by the cache."""
    container = seen(docker, BOTH).by_name.get(name)
    return None if container is None else container.id


@pytest.fixture
def proxy(fake_engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy in front of the fake engine."""
    path = tmp_path_factory.mktemp("proxy") / "docker.sock"
    with Proxy(path, fake_engine.socket) as between:
        yield between


# --- a fake engine: what is asked, and when


def test_a_sweep_is_one_list_and_only_what_changed_is_inspected(fake_engine: FakeEngine) -> None:
    names = fake_engine.fill(20, devices=["0"])
    with engine_at(fake_engine) as (docker, _):
        assert set(seen(docker).by_name) == set(names)
        fake_engine.calls.clear()
        for _ in range(3):
            seen(docker)
            seen(docker, BOTH)
        assert fake_engine.calls == {"/containers/json": 3}
        fake_engine.containers.stop(names[0])
        first = ContainerName(names[0])
        until(lambda: seen(docker, [first]).by_name[first].finished)
        seen(docker)
        inspects = sum(count for path, count in fake_engine.calls.items() if path.endswith("/json"))
        assert inspects - fake_engine.calls["/containers/json"] <= 2  # die, stop


def test_without_a_watch_every_look_is_a_list(fake_engine: FakeEngine) -> None:
    with engine_at(fake_engine, watch=False) as (docker, _):
        assert in_step(docker, set())
        fake_engine.containers.add(NAME)
        assert in_step(docker, {NAME})


def test_the_facts_of_a_container(fake_engine: FakeEngine) -> None:
    fake_engine.containers.add(
        NAME, labels={"ds01.managed": "true"}, requests=[request(count=2)], privileged=True
    )
    with engine_at(fake_engine) as (docker, _):
        answer = seen(docker)
        container = answer.by_name[NAME]
        assert container == answer.containers[container.id]
        assert container.state is State.RUNNING
        assert container.labelled
        assert container.privileged
        assert container.request == Request(ask=GpuRequestKind.COUNT, count=2)
        assert container.created
        assert container.started
        assert container.finished is None
        assert answer.identity.id == fake_engine.ident


def test_listeners_hear_names_and_events(fake_engine: FakeEngine) -> None:
    with engine_at(fake_engine) as (docker, heard):
        seen(docker)
        fake_engine.containers.add(NAME, labels={"aime.mlc": "alice"})
        fake_engine.containers.rename(NAME, OTHER)
        fake_engine.containers.die(OTHER, 3)
        fake_engine.containers.remove(OTHER)
        until(lambda: "destroy" in heard.actions)
        assert heard.actions == ["create", "start", "rename", "die", "destroy"]
        assert frozenset((NAME, OTHER)) in heard.names
        rename, die = heard.events[2:4]
        assert (rename.name, rename.old_name) == (OTHER, NAME)
        assert (die.exit_code, die.labels) == (3, {"aime.mlc": "alice"})
        assert docker.received == 5
        destroyed = seen(docker, BOTH).destroyed
        assert set(destroyed) == {OTHER}
        assert destroyed[OTHER].at <= boot()


def test_a_storm_keeps_no_look_for_long_and_who_is_left_is_asked_for_at_once(
    fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {ContainerName(name) for name in fake_engine.fill(20, devices=["0"])}
    with engine_at(fake_engine) as (docker, heard):
        monkeypatch.setattr("ds01d.adapters.docker.inspector.INSPECT_S", 0.0)
        assert all(isinstance(one.request, Request) for one in seen(docker).by_name.values())
        for name in names:
            fake_engine.containers.stop(name)
        until(lambda: heard.actions.count("stop") == len(names))
        for left in range(len(names) - 1, 0, -1):
            heard.names.clear()
            answer = seen(docker)
            assert {one.state for one in answer.by_name.values()} == {State.EXITED}
            waiting = {n for n, one in answer.by_name.items() if isinstance(one.request, Unknown)}
            assert len(waiting) == left
            assert heard.names == [frozenset(waiting)]
        heard.names.clear()
        assert all(one.finished for one in seen(docker, names).by_name.values())
        assert heard.names == []


def test_a_destroyed_name_is_forgotten_when_it_exists_again(fake_engine: FakeEngine) -> None:
    with engine_at(fake_engine) as (docker, heard):
        seen(docker)
        fake_engine.containers.add(NAME)
        fake_engine.containers.remove(NAME)
        again = fake_engine.containers.add(NAME)
        until(lambda: heard.actions.count("create") == 2)
        until(lambda: in_step(docker, {NAME}))
        answer = seen(docker, BOTH)
        assert answer.by_name[NAME].id == again
        assert not answer.destroyed


def test_destroy_events_outlive_the_stream(fake_engine: FakeEngine) -> None:
    with engine_at(fake_engine) as (docker, heard):
        fake_engine.containers.add(NAME)
        fake_engine.containers.remove(NAME)
        until(lambda: "destroy" in heard.actions)
        fake_engine.containers.end_streams()
        until(lambda: docker.reconnects == 1)
        assert set(seen(docker).destroyed) == {NAME}


# --- a proxy: answers that are none


@pytest.mark.parametrize("mode", sorted(SPOILING, key=str))
def test_a_spoilt_list_is_unknown_and_the_next_good_one_starts_time_anew(
    proxy: Proxy, fake_engine: FakeEngine, mode: Mode
) -> None:
    fake_engine.containers.add(NAME)
    with engine_at(proxy) as (docker, _):
        before = seen(docker).since
        proxy.fault("GET /containers/json", mode)
        began = time.monotonic()
        unknown(docker)
        assert time.monotonic() - began < LATE_S
        unknown(docker, BOTH)
        proxy.clear()
        after = seen(docker)
        assert set(after.by_name) == {NAME}
        assert before < after.since <= boot()


@pytest.mark.parametrize("path", ["/info", "/version"])
def test_an_engine_that_does_not_say_who_it_is_is_unknown(proxy: Proxy, path: str) -> None:
    proxy.fault(path, Mode.NONSENSE)
    with engine_at(proxy) as (docker, _):
        unknown(docker)
        proxy.clear()
        seen(docker)


@pytest.mark.parametrize("mode", [Mode.ERROR, Mode.NONSENSE, Mode.HALF, Mode.HANG])
def test_one_container_that_cannot_be_inspected_spoils_only_its_own_facts(
    proxy: Proxy, fake_engine: FakeEngine, mode: Mode
) -> None:
    wedged = ContainerId(fake_engine.containers.add(NAME, requests=[request("0")]))
    fake_engine.containers.add(OTHER, requests=[request("1")])
    proxy.fault(f"GET /containers/{wedged}/json", mode)
    with engine_at(proxy) as (docker, _):
        first = seen(docker)
        assert isinstance(first.by_name[NAME].request, Unknown)
        assert first.by_name[NAME].state is State.RUNNING
        assert isinstance(first.by_name[OTHER].request, Request)
        assert isinstance(docker.look_up(NAME, wedged), Unknown)
        proxy.clear()
        second = seen(docker)
        assert isinstance(second.by_name[NAME].request, Request)
        assert second.since == first.since


def test_a_container_heard_of_that_cannot_be_inspected_is_listed(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    with engine_at(proxy) as (docker, heard):
        seen(docker)
        proxy.fault("GET /containers/[0-9a-f]{64}/json", Mode.ERROR)
        fake_engine.containers.add(NAME)
        until(lambda: "start" in heard.actions)
        assert isinstance(seen(docker, BOTH).by_name[NAME].request, Unknown)


def test_many_wedged_containers_cost_two_deadlines_not_one_each(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    names = fake_engine.fill(10)
    proxy.fault(f"GET {INSPECT}", Mode.HANG)
    with engine_at(proxy) as (docker, _):
        answer = seen(docker)
        asked = [call for call in proxy.calls if re.fullmatch(f"GET {INSPECT}", call)]
        assert len(asked) == 2
        assert set(answer.by_name) == set(names)
        assert all(isinstance(one.request, Unknown) for one in answer.containers.values())


def test_a_container_removed_between_list_and_inspect_is_not_in_the_answer(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    ident = fake_engine.containers.add(NAME)
    proxy.fault(f"GET /containers/{ident}/json", Mode.DELAY, delay_s=0.2)
    with engine_at(proxy, watch=False) as (docker, _), answering(docker) as answer:
        until(lambda: f"GET /containers/{ident}/json" in proxy.calls)
        fake_engine.containers.remove(NAME)
        engine = answer()
        assert isinstance(engine, Engine)
        assert not engine.containers


def test_dropped_events_are_made_good_by_the_sweep_and_counted(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    with engine_at(proxy) as (docker, heard):
        seen(docker)
        proxy.on_event = lambda _: DROP
        fake_engine.containers.add(NAME)
        assert in_step(docker, set())
        assert set(seen(docker).by_name) == {NAME}
        assert docker.lost == 0  # An event may be late.
        seen(docker)
        assert docker.lost == 1
        until(lambda: docker.reconnects == 1)
        assert None in heard.names


def test_garbage_in_the_stream_breaks_it_and_it_is_opened_again(
    proxy: Proxy, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_bridge, "_MAX_REOPEN_S", 60.0)  # a busy machine takes its time
    proxy.fault("GET /events", Mode.HALF, first=1)
    with engine_at(proxy) as (docker, heard):
        before = seen(docker).since
        fake_engine.containers.add(NAME)
        until(lambda: docker.reconnects == 1)
        assert in_step(docker, {NAME})
        assert seen(docker).since == before  # the engine remembers the event, whole
        assert heard.actions == ["create", "start"]


def test_a_slow_look_at_the_engines_clock_is_no_step_of_it(
    proxy: Proxy, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time passes between its answer and our own clock: a busy host, or a suspended one."""
    passed_s = 0.0
    pauses = iter([0.0, 1.5])  # at the first stream, and at the next one

    def slowly(body: bytes) -> EngineInfo:
        nonlocal passed_s
        info = read_info(body)
        passed_s += next(pauses, 0.0)
        return info

    fake_engine.containers.clock = lambda: time.time() + passed_s
    monkeypatch.setattr(stream_bridge, "_MAX_REOPEN_S", 60.0)  # a busy machine takes its time
    monkeypatch.setattr(stream_bridge, "read_info", slowly)
    docker = DockerEngine(
        proxy.url,
        TIMEOUT_S,
        lambda: boot() + passed_s,
        clock_wall=lambda: time.time() + passed_s,
    )
    with closing(docker):
        docker.start()
        before = seen(docker).since
        proxy.cut()
        fake_engine.containers.add(NAME)
        until(lambda: docker.reconnects == 1)
        assert in_step(docker, {NAME})
        assert seen(docker).since == before


def test_a_stream_that_breaks_moves_since_and_is_listed_again(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    with engine_at(proxy) as (docker, heard):
        before = seen(docker).since
        proxy.refuse()
        unknown(docker)
        gone = fake_engine.containers.add(NAME)
        fake_engine.containers.add(OTHER)
        fake_engine.containers.remove(gone)
        proxy.accept()
        until(lambda: docker.reconnects == 1)
        assert heard.names[-1] is None
        assert in_step(docker, {OTHER})
        assert seen(docker).since > before


def test_a_stream_that_is_refused_is_not_tried_in_a_spin(proxy: Proxy) -> None:
    proxy.fault("GET /events", Mode.RESET)
    with engine_at(proxy, watch=False) as (docker, _):
        began = time.monotonic()
        docker.start()
        until(lambda: proxy.calls.count("GET /events") == 4)
        assert time.monotonic() - began >= 0.1 + 0.2 + 0.4, "at least half of each delay"
        assert docker.stream_problem


def test_a_stream_that_was_refused_does_not_wait_for_its_turn_once_the_engine_answers(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for delay in ("_FIRST_DELAY_S", "_LONGEST_DELAY_S"):
        monkeypatch.setattr(event_stream, delay, 3600.0)
    proxy.fault("GET /events", Mode.RESET)
    with engine_at(proxy) as (docker, _):
        assert docker.stream_problem
        proxy.clear()
        seen(docker)
        until(lambda: not docker.stream_problem)


def test_a_quiet_stream_is_kept_as_long_as_the_engine_answers(proxy: Proxy) -> None:
    with engine_at(proxy, idle_s=0.02) as (docker, _):
        before = seen(docker).since
        until(lambda: proxy.calls.count("GET /_ping") > 3)
        assert docker.reconnects == 0
        assert seen(docker).since == before


def test_a_quiet_stream_of_a_dead_engine_is_opened_again(proxy: Proxy) -> None:
    with engine_at(proxy, idle_s=0.05) as (docker, _):
        before = seen(docker).since
        proxy.fault("GET /_ping", Mode.HANG, first=1)
        until(lambda: docker.reconnects == 1)
        assert seen(docker).since > before


def test_close_frees_a_call_that_hangs(proxy: Proxy) -> None:
    proxy.fault("GET /containers/json", Mode.HANG)
    with engine_at(proxy, timeout_s=30) as (docker, _), answering(docker) as answer:
        until(lambda: "GET /containers/json" in proxy.calls)
        began = time.monotonic()
        docker.close()
        assert isinstance(answer(), Unknown)
        assert time.monotonic() - began < 20, "before the deadline of the call"
        assert not [one for one in threading.enumerate() if one.name == "docker-events"]
        unknown(docker)


def test_what_was_inspected_before_a_restart_is_not_inspected_again(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    for number in range(5):
        fake_engine.containers.add(f"job{number}._.1001", start=False, requests=[request("0")])
    with engine_at(proxy) as (docker, _):
        before = seen(docker).containers
        kept = docker.export_cache()
    proxy.calls.clear()
    with engine_at(proxy, kept=kept) as (docker, _):
        assert seen(docker).containers == before
        assert sum("/containers/" in call for call in proxy.calls) == 1


# --- looking one up


def test_gone_is_only_what_the_engine_has_neither_by_id_nor_by_name(
    fake_engine: FakeEngine,
) -> None:
    ident = ContainerId(fake_engine.containers.add(NAME))
    missing = ContainerId("0" * 64)
    with engine_at(fake_engine) as (docker, _):
        for known in (ident, missing, None):
            found = docker.look_up(NAME, known)
            assert isinstance(found, Container)
            assert found.id == ident
        fake_engine.containers.rename(NAME, OTHER)
        renamed = docker.look_up(NAME, ident)
        assert isinstance(renamed, Container)
        assert renamed.name == OTHER
        assert docker.look_up(NAME, None) == NotFound()
        fake_engine.containers.remove(OTHER)
        assert docker.look_up(NAME, ident) == NotFound()


def test_the_name_is_asked_for_when_the_id_is_gone_and_not_before(proxy: Proxy) -> None:
    """Decision 361: or its answer would be as old as that by ID is slow."""
    gone = ContainerId("0" * 64)
    by_id = proxy.hold(f"/containers/{gone}/json")
    by_name = proxy.hold(f"/containers/{re.escape(NAME)}/json")
    with engine_at(proxy) as (docker, _):
        seen(docker)
        answers: list[object] = []
        asking = threading.Thread(target=lambda: answers.append(docker.look_up(NAME, gone)))
        asking.start()
        assert by_id.met.wait(LATE_S)
        assert not by_name.met.wait(0.2)
        by_id.go.set()
        assert by_name.met.wait(LATE_S)
        by_name.go.set()
        asking.join()
    assert answers == [NotFound()]


def test_the_name_counts_only_for_one_that_is_gone_by_id(
    proxy: Proxy, fake_engine: FakeEngine
) -> None:
    ident = ContainerId(fake_engine.containers.add(NAME))
    proxy.fault(f"/containers/{re.escape(NAME)}/json", Mode.ERROR)
    with engine_at(proxy) as (docker, _):
        seen(docker)
        found = docker.look_up(NAME, ident)
        assert isinstance(found, Container)
        assert isinstance(docker.look_up(NAME, ContainerId("0" * 64)), Unknown)
        assert docker.look_up(ContainerName("a b"), ContainerId("0" * 64)) == NotFound()


def test_who_claims_a_reservation_is_listed_past_the_cache(
    fake_engine: FakeEngine, proxy: Proxy
) -> None:
    booking, other = BookingId("r-0123456789ab"), BookingId("r-ba9876543210")
    with engine_at(proxy) as (docker, _):
        assert docker.list_claimants(booking) == frozenset()
        ident = ContainerId(fake_engine.containers.add(NAME, labels={BOOKING_LABEL: booking}))
        fake_engine.containers.add(OTHER, labels={BOOKING_LABEL: other})
        assert docker.list_claimants(booking) == frozenset({ident})
        proxy.fault("/containers/json", Mode.ERROR)
        assert isinstance(docker.list_claimants(booking), Unknown)


def test_the_beginning_of_an_id_is_no_name(fake_engine: FakeEngine) -> None:
    ident = fake_engine.containers.add(NAME)
    with engine_at(fake_engine) as (docker, _):
        assert docker.look_up(ContainerName(ident[:12]), None) == NotFound()


def test_the_beginning_of_several_ids_is_no_name_unless_something_has_it(
    fake_engine: FakeEngine,
) -> None:
    with engine_at(fake_engine) as (docker, _):
        look_up_a_beginning(docker, fake_engine.containers.add)


@pytest.mark.docker
def test_nor_for_a_real_engine(engine: PrivateEngine) -> None:
    with engine_at(engine, timeout_s=5) as (docker, _):
        look_up_a_beginning(docker, partial(engine.run, start=False))


def look_up_a_beginning(docker: DockerEngine, add: Callable[[str], str]) -> None:
    ids: list[str] = []
    while len({ident[:2] for ident in ids}) == len(ids):  # some twenty
        ids.append(add(f"c{len(ids)}._.1001"))
    name = ContainerName(ids[-1][:2])
    seen(docker)
    assert docker.look_up(name, None) == NotFound()
    assert docker.look_up(name, ContainerId("f" * 64)) == NotFound()
    ident = add(name)
    answer = docker.look_up(name, None)
    assert isinstance(answer, Container)
    assert (answer.id, answer.name) == (ident, name)


@pytest.mark.parametrize("name", ["a/../../containers", "..", "a?all=1", "a b", "x\n", "", "ä#"])
def test_a_name_that_no_container_can_have_is_asked_of_nobody(
    fake_engine: FakeEngine, name: str
) -> None:
    with engine_at(fake_engine, watch=False) as (docker, _):
        seen(docker)
        fake_engine.calls.clear()
        assert docker.look_up(ContainerName(name), None) == NotFound()
        assert not fake_engine.calls


@pytest.mark.parametrize("mode", sorted(SPOILING, key=str))
def test_a_lookup_that_fails_proves_nothing(proxy: Proxy, mode: Mode) -> None:
    with engine_at(proxy) as (docker, _):
        seen(docker)
        proxy.fault(f"GET /containers/{NAME}/json", mode)
        assert isinstance(docker.look_up(NAME, None), Unknown)


def test_after_a_gap_a_lookup_proves_nothing_until_the_next_look(fake_engine: FakeEngine) -> None:
    """The 404 may be another engine's."""
    with engine_at(fake_engine) as (docker, _):
        seen(docker)
        assert docker.look_up(NAME, None) == NotFound()
        fake_engine.stop()
        fake_engine.start()
        until(lambda: docker.reconnects)
        assert isinstance(docker.look_up(NAME, None), Unknown)
        seen(docker)
        assert docker.look_up(NAME, None) == NotFound()


def test_a_lookup_mends_a_fact_that_had_become_wrong(fake_engine: FakeEngine) -> None:
    fake_engine.containers.add(NAME)
    with engine_at(fake_engine) as (docker, _):
        started = seen(docker).by_name[NAME].started
        fake_engine.containers.change(NAME, started=time.time() + 5)  # without an event
        assert seen(docker).by_name[NAME].started == started
        assert isinstance(docker.look_up(NAME, None), Container)
        assert seen(docker, BOTH).by_name[NAME].started != started


# --- servers that are no engine


class Script:
    """Answers each path with bytes, given as they are, a piece at a time."""

    def __init__(self, answers: dict[str, bytes], *, drip_s: float = 0.0) -> None:
        self.answers = {"/version": http(b'{"ApiVersion":"1.41"}'), "/info": INFO} | answers
        self.drip_s = drip_s
        self.closing = threading.Event()


class ScriptHandler(UnixHandler[Script]):
    def do_GET(self) -> None:  # noqa: N802 - http.server calls it so
        self.close_connection = True
        answer = self.owner.answers.get(self.plain_path, http(b'{"message":"page not found"}', 404))
        if not self.owner.drip_s or self.plain_path == "/version":
            self.wfile.write(answer)
            return
        with contextlib.suppress(OSError):
            for byte in answer:
                self.wfile.write(bytes((byte,)))
                if self.owner.closing.wait(self.owner.drip_s):
                    return


def http(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d Word\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


INFO = http(b'{"ID":"X","DockerRootDir":"/nowhere/at/all","DefaultRuntime":"runc"}')


@contextmanager
def scripted(path: Path, script: Script) -> Iterator[str]:
    server: UnixServer[Any] = UnixServer(path, script, ScriptHandler)
    server.run()
    try:
        yield f"unix://{path}"
    finally:
        script.closing.set()
        server.end()


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"{}",
        b'"[]"',
        b"[null]",
        b"[{}]",
        b'[{"Id":"../x","Names":["/x"],"State":"running","Created":1}]',
        b'[{"Id":"c0ffee","Names":["/x"],"State":"in a new state","Created":1}]',
        b'[{"Id":"c0ffee","Names":"/x","State":"running","Created":1}]',
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_list_of_another_shape_is_unknown(tmp_path: Path, body: bytes) -> None:
    with (
        scripted(tmp_path / "s", Script({"/containers/json": http(body)})) as url,
        engine_at(url, watch=False) as (docker, _),
    ):
        unknown(docker)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n" * 200,
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /v1.41/elsewhere\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        http(b"[]", 503),
        http(b"<html>\x1b[31mnot\nhere</html>", 404),
    ],
)
def test_http_that_docker_would_not_speak_is_unknown(tmp_path: Path, answer: bytes) -> None:
    script = Script({"/containers/json": answer, "/elsewhere": http(b"[]")})
    with (
        scripted(tmp_path / "s", script) as url,
        engine_at(url, watch=False) as (docker, _),
    ):
        unknown(docker)


@pytest.mark.parametrize("body", [b"", b"no", b'{"message":"page not found"}', b'{"message":7}'])
def test_a_404_in_other_words_than_dockers_proves_nothing(tmp_path: Path, body: bytes) -> None:
    script = Script({"/containers/json": http(b"[]"), f"/containers/{NAME}/json": http(body, 404)})
    with (
        scripted(tmp_path / "s", script) as url,
        engine_at(url, watch=False) as (docker, _),
    ):
        assert seen(docker).identity.inode == 0
        assert isinstance(docker.look_up(NAME, None), Unknown)
        script.answers[f"/containers/{NAME}/json"] = http(
            b'{"message":"No such container: x"}', 404
        )
        assert docker.look_up(NAME, None) == NotFound()


def test_a_server_that_drips_is_cut_off_at_the_deadline(tmp_path: Path) -> None:
    script = Script({"/containers/json": http(b"[]" + b" " * 5000)}, drip_s=0.02)
    with (
        scripted(tmp_path / "s", script) as url,
        engine_at(url, watch=False) as (docker, _),
    ):
        began = time.monotonic()
        assert "timed out" in unknown(docker)
        assert time.monotonic() - began < LATE_S


def test_an_answer_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds01d.adapters.docker.deadline_socket.MAX_ANSWER_BYTES", 100_000)
    script = Script({"/containers/json": http(b"[]" + b" " * 200_000)})
    with (
        scripted(tmp_path / "s", script) as url,
        engine_at(url, watch=False) as (docker, _),
    ):
        assert "100000 bytes" in unknown(docker)


def test_where_nobody_listens_the_reason_says_so(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with engine_at(f"unix://{path}", watch=False) as (docker, _):
        assert "no such socket" in unknown(docker)
        with closing(socket.socket(socket.AF_UNIX)) as deaf:
            deaf.bind(str(path))
            assert "connection refused" in unknown(docker)
        path.unlink()
        path.write_text("")
        assert "connection refused" in unknown(docker)


@pytest.mark.parametrize("url", ["ssh://host", "https://host:1", "unix:", "nonsense://", ""])
def test_an_address_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError):
        DockerEngine(url, 1.0, boot)


def test_neither_proxies_nor_the_configuration_of_a_user_come_in_between(
    fake_engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"HttpHeaders":{"X":"y"},"proxies":{"default":{}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    with engine_at(fake_engine) as (docker, _):
        seen(docker)


def test_where_systemd_listens_the_pid_file_names_the_engine(
    fake_engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = HttpClient(fake_engine.url, TIMEOUT_S)
    client.ping()
    ours = client.instance
    assert ours.startswith(f"{os.getpid()}:")
    file = tmp_path / "docker.pid"
    monkeypatch.setattr("ds01d.adapters.docker.connector._PID_FILE", file)
    client._connector._peer_pid = 1
    assert client.instance == ""
    file.write_text(f"{os.getpid()}")
    assert client.instance == ours


# --- a real engine


@pytest.mark.docker
def test_the_story_of_a_ds01_container(engine: PrivateEngine) -> None:
    with engine_at(engine, timeout_s=5) as (docker, heard):
        before = seen(docker)
        assert before.instance.startswith(f"{engine.pid}:")
        assert before.identity.inode == engine.data_root.stat().st_ino
        labels = {"aime.mlc": "alice", "ds01.managed": "true"}
        ident = engine.mlc_create(NAME, labels=labels, devices="device=0")
        engine.run(OTHER, devices="all", start=False)
        until(lambda: in_step(docker, {NAME, OTHER}))
        answer = seen(docker, BOTH)
        container = answer.by_name[NAME]
        assert (container.id, container.state) == (ident, State.RUNNING)
        assert container.labels == labels
        assert isinstance(container.request, Request)
        assert [ref.text for ref in container.request.devices] == ["0"]
        assert answer.by_name[OTHER].request == Request(ask=GpuRequestKind.ALL)
        assert not answer.destroyed
        assert answer.since == before.since
        assert seen(docker).containers == answer.containers
        assert docker.lost == 0
        assert set(heard.names) >= {frozenset((NAME,)), frozenset((OTHER,))}

        engine.stop_container(NAME)
        until(lambda: seen(docker, BOTH).by_name[NAME].finished)
        engine.client.rename(OTHER, "swap")
        engine.client.rename(NAME, OTHER)
        engine.client.rename("swap", NAME)
        until(lambda: current(docker, OTHER) == ident)
        assert seen(docker, BOTH).by_name[NAME].request == Request(ask=GpuRequestKind.ALL)
        engine.remove(OTHER)
        again = engine.run(OTHER, start=False)
        until(lambda: current(docker, OTHER) == again)
        assert seen(docker).by_name[OTHER].labels == {}
        assert docker.look_up(NAME, ContainerId(ident)) == seen(docker).by_name[NAME]
        engine.remove(OTHER)
        until(lambda: set(seen(docker, BOTH).destroyed) == {OTHER})
        assert docker.look_up(OTHER, ContainerId(again)) == NotFound()


@pytest.mark.docker
def test_a_restart_of_a_container_changes_its_start(engine: PrivateEngine) -> None:
    engine.run(NAME)
    with engine_at(engine, timeout_s=5) as (docker, _):
        started = seen(docker).by_name[NAME].started
        engine.client.restart(NAME, timeout=0)
        until(lambda: seen(docker, BOTH).by_name[NAME].started != started)


@pytest.mark.docker
def test_a_killed_dockerd_is_unknown_and_the_next_one_starts_time_anew(
    engine: PrivateEngine,
) -> None:
    engine.run(NAME, start=False)
    with engine_at(engine, timeout_s=5) as (docker, _):
        before = seen(docker)
        engine.kill()
        unknown(docker, BOTH)
        unknown(docker)
        assert isinstance(docker.look_up(NAME, None), Unknown)
        engine.start()
        until(lambda: docker.reconnects)
        after = seen(docker, BOTH)
        assert after.instance != before.instance
        assert after.since > before.since
        assert after.identity == before.identity
        assert after.containers == before.containers


@pytest.mark.docker
def test_a_stopped_dockerd_is_unknown_within_the_deadline(engine: PrivateEngine) -> None:
    with engine_at(engine) as (docker, _):
        before = seen(docker).since
        engine.pause()
        began = time.monotonic()
        assert "timed out" in unknown(docker)
        assert time.monotonic() - began < LATE_S
        engine.resume()
        until(lambda: docker.reconnects)
        assert seen(docker, BOTH).since > before


@pytest.mark.docker
def test_another_data_root_is_another_engine(engine: PrivateEngine) -> None:
    with engine_at(engine, timeout_s=5) as (docker, _):
        before = seen(docker)
        engine.switch_data_root("elsewhere")
        until(lambda: docker.reconnects)
        assert seen(docker).identity != before.identity


@pytest.mark.docker
def test_what_happens_while_nobody_listens_is_right_at_the_next_look(
    engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Restarted and stopped again: its row looks as before, and its hold must begin anew."""
    names = {word: ContainerName(f"{word}._.1001") for word in ("stop", "gone", "old", "again")}
    for name in names.values():
        engine.run(name, start=name == names["stop"])
    engine.client.start(names["again"])
    engine.stop_container(names["again"])
    path = tmp_path_factory.mktemp("proxy") / "docker.sock"
    with Proxy(path, engine.socket) as proxy, engine_at(proxy, timeout_s=5) as (docker, _):
        finished = seen(docker).by_name[names["again"]].finished
        assert finished
        proxy.refuse()
        # A gap that was short and is bridged leaves the list alone, which has to be asked for here.
        until(lambda: "refused" in docker.stream_problem)
        engine.stop_container(names["stop"])
        engine.remove(names["gone"])
        engine.client.rename(names["old"], "new._.1001")
        engine.client.start(names["again"])
        engine.stop_container(names["again"])
        proxy.accept()
        until(lambda: docker.reconnects == 1)
        after = seen(docker, BOTH).by_name
        assert set(after) == {names["stop"], "new._.1001", names["again"]}
        assert after[names["stop"]].state is State.EXITED
        assert (after[names["again"]].finished or 0) > finished


# --- helpers


@contextmanager
def answering(docker: DockerEngine) -> Iterator[Callable[[], Engine | Unknown]]:
    """Look in a thread; what is given waits for the answer."""
    answers: list[Engine | Unknown] = []
    thread = threading.Thread(target=lambda: answers.append(docker.observe(None)))
    thread.start()

    def answer() -> Engine | Unknown:
        thread.join(60)
        assert answers, "it hangs"
        return answers[0]

    try:
        yield answer
    finally:
        thread.join(60)
