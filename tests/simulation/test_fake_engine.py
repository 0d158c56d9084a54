"""The fake Docker engine answers the real SDK, in the shapes of a real engine."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError, NotFound

from ds01d.adapters.docker.engine import DockerEngine
from ds01d.model.containers import Engine
from simulation.engine import PrivateEngine
from simulation.fake_engine import FakeEngine, fake_engine_process, request
from tests.support.books import until

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def client(fake_engine: FakeEngine) -> Iterator[docker.APIClient]:
    connected = docker.APIClient(base_url=fake_engine.url, version="auto", timeout=60)
    yield connected
    connected.close()


def story(client: docker.APIClient) -> list[dict[str, Any]]:
    """Let containers live through what they can, and return the events."""
    stream = client.events(decode=True)
    host = client.create_host_config(network_mode="none")
    for name in ("train._.1001", "other"):
        client.create_container(
            "ds01d-test:latest",
            ["sleep", "600"],
            name=name,
            labels={"aime.mlc": "alice"},
            host_config=host,
            stop_signal="SIGKILL",
        )
    client.start("train._.1001")
    client.pause("train._.1001")
    client.unpause("train._.1001")
    client.rename("train._.1001", "renamed")
    client.stop("renamed", timeout=0)
    client.start("renamed")
    client.remove_container("renamed", force=True)
    client.remove_container("other")
    events: list[dict[str, Any]] = []
    while [event["Action"] for event in events].count("destroy") < 2:
        events.append(next(stream))
    stream.close()
    return events


def shape(value: object) -> object:
    """What a value looks like: the keys, and the kinds of the leaves."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return type(value).__name__


def covers(real: object, fake: object) -> bool:
    """Whether a real answer has all that the fake one has; each new version of Docker has more."""
    if isinstance(real, dict) and isinstance(fake, dict):
        return all(key in real and covers(real[key], inner) for key, inner in fake.items())
    if isinstance(real, list) and isinstance(fake, list):
        return not fake or (bool(real) and covers(real[0], fake[0]))
    return real == fake


@pytest.mark.docker
def test_a_real_engine_tells_the_same_story(
    engine: PrivateEngine, client: docker.APIClient
) -> None:
    real, fake = story(engine.client), story(client)

    def told(events: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, object]]]:
        rows: list[tuple[str, str, dict[str, object]]] = []
        for event in events:
            about = {**event["Actor"]["Attributes"], "signal": "", "container": ""}
            about.pop("execDuration", None)  # newer engines tell it
            # containerd's word of a pause may come once the pause is over: 20.10 tells both again.
            if "pause" not in event["Action"] or event["Action"] not in {row[1] for row in rows}:
                rows.append((event["Type"], event["Action"], about))
        return [row for row in rows if row[1] != "kill"]

    def in_order(events: list[dict[str, Any]]) -> list[object]:
        return [row for row in told(events) if row[0] == "container" and row[1] != "stop"]

    def essence(event: dict[str, Any]) -> object:
        # What Docker had before 1.22 of its API, and gave up in 1.52, says nothing more.
        return shape({key: event[key] for key in event.keys() - {"status", "id", "from"}})

    # Before a container dies or after it, a newer engine says that it was stopped and has left its
    # network.
    assert in_order(fake) == in_order(real)
    assert sorted(told(fake), key=repr) == sorted(told(real), key=repr)
    kinds = {(event["Type"], event["Action"]): essence(event) for event in real}
    assert all(covers(kinds[event["Type"], event["Action"]], essence(event)) for event in fake)


@pytest.mark.docker
@pytest.mark.parametrize("state", ["created", "running", "paused", "exited"])
def test_a_real_engine_answers_in_the_same_shapes(
    engine: PrivateEngine, client: docker.APIClient, state: str
) -> None:
    host = client.create_host_config(network_mode="none")
    host["DeviceRequests"] = [request("1:0")]
    answers = []
    for each in (engine.client, client):
        each.create_container(
            "ds01d-test:latest",
            ["sleep", "600"],
            name="train._.1001",
            labels={"aime.mlc": "alice"},
            environment={"A": "b"},
            host_config=host,
            stop_signal="SIGKILL",
        )
        if state != "created":
            each.start("train._.1001")
        if state == "paused":
            each.pause("train._.1001")
        if state == "exited":
            each.stop("train._.1001", timeout=0)
        # Docker 26 and later list a container from a copy that follows a little later.
        row = until(partial(_find_row, each, state), what=f"the container to be listed as {state}")
        seen = each.inspect_container("train._.1001")
        times = seen["State"].pop("StartedAt"), seen["State"].pop("FinishedAt")
        seen["State"]["Pid"] = bool(seen["State"]["Pid"])
        config = {key: seen["Config"][key] for key in ("Labels", "Cmd", "Image")}
        answers.append(
            {
                "row": shape({**row, "Labels": None}),
                "inspect": {key: shape(seen[key]) for key in ("Id", "Created", "Name", "Mounts")},
                "state": seen["State"],
                "times": [each.startswith("0001-") for each in times],
                "requests": seen["HostConfig"]["DeviceRequests"],
                "config": config,
                "listed": (row["State"], row["Names"], row["Labels"], row["Command"]),
                "version": set(each.version()),
                "running": len(each.containers()),
            }
        )
    real, fake = answers
    assert covers(real.pop("row"), fake.pop("row"))
    assert covers(real.pop("inspect"), fake.pop("inspect"))
    assert fake.pop("version") <= real.pop("version")
    assert fake == real
    assert set(client.info()) <= set(engine.client.info())


def _find_row(client: docker.APIClient, state: str) -> dict[str, Any] | None:
    (row,) = client.containers(all=True)
    return row if row["State"] == state else None


@pytest.mark.docker
def test_a_real_engine_fails_in_the_same_words(
    engine: PrivateEngine, client: docker.APIClient
) -> None:
    said = []
    for each in (engine.client, client):
        with pytest.raises(NotFound) as error:
            each.inspect_container("nobody._.1001")
        said.append((error.value.status_code, error.value.explanation))
    assert said[0] == said[1] == (404, "No such container: nobody._.1001")


@pytest.mark.docker
@pytest.mark.engine_since(26, 0)
def test_a_real_engine_refuses_the_versions_that_it_does_not_speak_in_the_same_words(
    engine_host: None, fake_engine: FakeEngine
) -> None:
    """As Docker 29 does by default with what is older than 1.44."""
    with PrivateEngine(env={"DOCKER_MIN_API_VERSION": "1.44"}) as engine:
        real = engine.client.version()
        fake_engine.api = real["MinAPIVersion"], real["ApiVersion"]
        assert fake_engine.api[0] == "1.44"
        said = []
        for url in (engine.url, fake_engine.url):
            for version in ("1.43", "1.99"):
                old = docker.APIClient(base_url=url, version=version)
                with pytest.raises(APIError) as error:
                    old.containers()
                said.append((error.value.status_code, error.value.explanation))
                old.close()
        assert said[:2] == said[2:]
        # What ds01d asks in is spoken here.
        with closing(DockerEngine(engine.url, 5.0, time.monotonic)) as ours:
            engine.run("train._.1001", devices="1:0", start=False)
            answer = ours.observe(None)
            assert isinstance(answer, Engine)
            assert {one.name for one in answer.containers.values()} == {"train._.1001"}


def test_containers_are_found_by_name_and_id(
    fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    made = fake_engine.containers.add("train._.1001", labels={"a": "b"}, requests=[request("0")])
    for key in ("train._.1001", made, made[:12]):
        assert client.inspect_container(key)["Id"] == made
    fake_engine.containers.rename(made, "renamed")
    with pytest.raises(NotFound):
        client.inspect_container("train._.1001")
    assert client.inspect_container("renamed")["Name"] == "/renamed"
    with pytest.raises(APIError, match="Conflict"):
        client.rename("renamed", "renamed")
    client.remove_container("renamed", force=True)
    assert client.containers(all=True) == []


def test_a_container_changes_without_a_word(
    fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    fake_engine.containers.add("train._.1001")
    (row,) = client.containers(all=True)
    assert row["State"] == "running"
    fake_engine.containers.change("train._.1001", status="exited", pid=0, finished=1e9)
    (row,) = client.containers(all=True)
    assert row["State"] == "exited"
    state = client.inspect_container("train._.1001")["State"]
    assert (state["Running"], state["FinishedAt"]) == (False, "2001-09-09T01:46:40.000000000Z")
    assert client.containers() == []


def test_the_recorded_answer_comes_back_whole(
    fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    recorded = json.loads((DATA / "docker-inspect-mlc-container.json").read_text())[0]
    fake_engine.containers.add("train._.1001", start=False)
    seen = client.inspect_container("train._.1001")
    assert set(seen) == set(recorded)
    for part in ("State", "HostConfig", "Config", "NetworkSettings"):
        assert set(seen[part]) == set(recorded[part])


def test_events_can_be_filtered_and_the_past_is_short(
    fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    stream = client.events(decode=True, filters={"type": ["container"], "event": ["start"]})
    fake_engine.fill(300)
    heard = [next(stream) for _ in range(300)]
    assert {event["Action"] for event in heard} == {"start"}
    stream.close()
    stream = client.events(decode=True, since=int(time.time()) - 60)
    fake_engine.containers.end_streams()
    assert len(list(stream)) == 256
    stream.close()


def test_it_counts_calls_and_serves_with_and_without_version(fake_engine: FakeEngine) -> None:
    fake_engine.fill(3)
    for version in ("1.41", "1.24"):
        client = docker.APIClient(base_url=fake_engine.url, version=version)
        assert len(client.containers(all=True)) == 3
        assert client.ping()
        client.close()
    assert fake_engine.calls["/containers/json"] == 2
    assert fake_engine.calls["/_ping"] == 2


def test_a_stopped_engine_ends_its_streams_and_starts_again(
    fake_engine: FakeEngine, client: docker.APIClient
) -> None:
    fake_engine.fill(2)
    stream = client.events(decode=True)
    fake_engine.stop()
    assert list(stream) == []
    stream.close()
    assert not fake_engine.socket.exists()
    fake_engine.start()
    assert len(client.containers(all=True)) == 2


def test_ten_thousand_containers_in_a_process_of_its_own(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("fake") / "docker.sock"
    with fake_engine_process(path, containers=10_000, devices=["0", "1:0"]) as url:
        client = docker.APIClient(base_url=url, version="1.41", timeout=60)
        rows = client.containers(all=True)
        assert len(rows) == 10_000
        assert len({row["Id"] for row in rows}) == 10_000
        stream = client.events(decode=True)
        client.remove_container("job7._.1008", force=True)
        assert [next(stream)["Action"] for _ in range(4)][-1] == "destroy"
        stream.close()
        assert len(client.containers(all=True)) == 9_999
        client.close()
