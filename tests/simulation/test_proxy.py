"""The proxy spoils what it is told to spoil, and nothing else."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest
import requests
from docker.errors import APIError

from simulation.engine import PrivateEngine
from simulation.fake_engine import FakeEngine
from simulation.proxy import DROP, PASS, TWICE, Mode, Proxy
from tests.simulation.connections import accepts, call


@pytest.fixture
def client(proxy: Proxy) -> Iterator[docker.APIClient]:
    connected = docker.APIClient(base_url=proxy.url, version="1.41", timeout=60)
    yield connected
    connected.close()


def test_what_is_not_spoiled_goes_through(
    proxy: Proxy, fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    names = fake_engine.fill(20)
    assert len(client.containers(all=True)) == 20
    assert client.inspect_container(names[0])["Name"] == f"/{names[0]}"
    with pytest.raises(APIError, match="No such container"):
        client.inspect_container("nobody")
    client.remove_container(names[0], force=True)
    assert fake_engine.containers.find(names[0]) is None
    assert client.ping()
    assert proxy.calls == [
        "GET /containers/json",
        f"GET /containers/{names[0]}/json",
        "GET /containers/nobody/json",
        f"DELETE /containers/{names[0]}",
        "GET /_ping",
    ]


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        (Mode.ERROR, APIError),
        (Mode.RESET, requests.ConnectionError),
        (Mode.GARBAGE, requests.ConnectionError),
        (Mode.NONSENSE, requests.exceptions.JSONDecodeError),
        (Mode.HANG, requests.ReadTimeout),
    ],
)
def test_answers_are_spoiled_by_path_and_only_so_often(
    proxy: Proxy,
    fake_engine: FakeEngine,
    client: docker.APIClient,
    mode: Mode,
    error: type[Exception],
) -> None:
    fake_engine.fill(20)
    proxy.fault(r"GET /containers/json", mode, first=1)
    assert client.ping()
    client.timeout = 1 if mode is Mode.HANG else 30
    with pytest.raises(error):
        client.containers(all=True)
    client.timeout = 30
    assert len(client.containers(all=True)) == 20


def test_half_an_answer_is_announced_whole(proxy: Proxy, fake_engine: FakeEngine) -> None:
    fake_engine.fill(20)
    whole = call(proxy.socket, "/containers/json?all=1")
    proxy.fault("/containers/json", Mode.HALF)
    half = call(proxy.socket, "/containers/json?all=1")
    assert half.announced == whole.announced == len(whole.body) == 2 * len(half.body)
    proxy.clear()
    assert call(proxy.socket, "/containers/json?all=1") == whole


def test_an_answer_can_be_late(proxy: Proxy, client: docker.APIClient) -> None:
    proxy.fault("/_ping", Mode.DELAY, delay_s=0.1, first=1)
    start = time.monotonic()
    assert client.ping()
    late = time.monotonic() - start
    assert late >= 0.1
    assert client.ping()


def test_it_refuses_and_accepts_again(proxy: Proxy, client: docker.APIClient) -> None:
    assert client.ping()
    proxy.refuse()
    assert not accepts(proxy.socket)
    proxy.accept()
    assert accepts(proxy.socket)
    assert client.ping()


def test_events_are_dropped_doubled_and_held_back(
    proxy: Proxy, fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    fates = {"create": DROP, "start": TWICE, "pause": (0.1,)}
    proxy.on_event = lambda event: fates.get(event["Action"], PASS)
    stream = client.events(decode=True)
    made = fake_engine.containers.add("train._.1001")
    fake_engine.containers.pause(made)
    fake_engine.containers.unpause(made)
    told = [next(stream)["Action"] for _ in range(5)]
    assert told == ["connect", "start", "start", "pause", "unpause"]
    stream.close()


def test_events_change_places(
    proxy: Proxy, fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    stream = client.events(decode=True)
    proxy.swap_events = True
    made = fake_engine.containers.add("train._.1001")  # create, connect, start
    fake_engine.containers.pause(made)
    told = [next(stream)["Action"] for _ in range(4)]
    assert told == ["connect", "create", "pause", "start"]
    stream.close()


def test_a_list_can_be_as_old_as_wanted(
    proxy: Proxy, fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    proxy.fault("/containers/json", Mode.OLD)
    assert client.containers(all=True) == [], "there is none that is older"
    fake_engine.fill(3)
    assert client.containers(all=True) == []
    proxy.clear()
    assert len(client.containers(all=True)) == 3
    proxy.fault("/containers/json", Mode.OLD, delay_s=60)
    assert len(client.containers(all=True)) == 3


def test_a_stream_can_break_off_in_the_middle(
    proxy: Proxy, fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    proxy.fault("/events", Mode.HALF, first=1)
    stream: Any = client.events()  # Of bytes, whatever the types say.
    fake_engine.containers.add("train._.1001", start=False)
    heard = b"".join(stream)
    assert heard.startswith(b'{"status": "create"')
    assert not heard.endswith(b"}")
    stream.close()


def test_open_connections_are_cut(
    proxy: Proxy, fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    stream = client.events(decode=True)
    heard: list[Any] = []
    listener = threading.Thread(target=lambda: heard.extend(stream))
    listener.start()
    proxy.cut()
    listener.join(timeout=60)
    assert not listener.is_alive()
    assert heard == []
    stream.close()
    assert client.ping()


@pytest.mark.docker
def test_it_stands_before_a_real_engine(engine: PrivateEngine) -> None:
    path = engine.root / "proxy.sock"
    with Proxy(path, engine.socket) as proxy:
        client = docker.APIClient(base_url=proxy.url, version="auto", timeout=60)
        stream = client.events(decode=True)
        made = engine.run("train._.1001", start=False)
        assert next(stream)["id"] == made
        (row,) = client.containers(all=True)
        assert row["Id"] == made
        engine.kill()
        assert list(stream) == []
        stream.close()
        with pytest.raises(requests.ConnectionError):
            client.ping()
        engine.start()
        assert client.ping()
        client.close()
