"""`docker.url` in every form: check, daemon and commands understand the same, or refuse the same.

And nothing but `docker.url` says where the engine is: no environment, no client configuration.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from ds01d.adapters.docker.commands import DockerCommands
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.config_file import parse_config
from ds01d.config_text import Endpoint, engine_endpoint
from ds01d.errors import ConfigError
from simulation.fake_engine import FakeEngine
from tests.adapters.docker.test_engine import NAME, engine_at, seen, unknown

SUPPORTED = {
    "unix:///run/docker.sock": Endpoint(path="/run/docker.sock"),
    "unix:///run/user/1000/podman/podman.sock": Endpoint(path="/run/user/1000/podman/podman.sock"),
    "tcp://10.0.0.1:2375": Endpoint(host="10.0.0.1", port=2375),
    "tcp://engine.lab:2375/": Endpoint(host="engine.lab", port=2375),
    "tcp://[::1]:2375": Endpoint(host="::1", port=2375),
    "tcp://[fd00::7]:2375/": Endpoint(host="fd00::7", port=2375),
    "http://localhost:2375": Endpoint(host="localhost", port=2375),
}
REFUSED = {
    "": "unix:///run/docker.sock",
    "unix://": "unix:///run/docker.sock",
    "unix:///": "unix:///run/docker.sock",
    "unix:/run/docker.sock": "unix:///run/docker.sock",
    "unix://run/docker.sock": "unix:///run/docker.sock",
    "unix:///run/docker.sock/": "unix:///run/docker.sock",
    "/run/docker.sock": "unix:///run/docker.sock",
    "docker.sock": "unix:///run/docker.sock",
    "localhost:2375": "unix:///run/docker.sock",
    "http+unix:///run/docker.sock": "unix:///run/docker.sock",
    "tcp://": "tcp://HOST:2375",
    "http://": "tcp://HOST:2375",
    "tcp://:2375": "tcp://HOST:2375",
    "tcp://engine": "tcp://engine:2375",
    "tcp://::1": "tcp://[::1]:2375",
    "tcp://[::1]": "tcp://HOST:2375",
    "tcp://[::1": "tcp://HOST:2375",
    "tcp://[12345::1]:2375": "tcp://[::1]:2375",
    "tcp://h:0": "tcp://HOST:2375",
    "tcp://h:65536": "tcp://HOST:2375",
    "tcp://h:2375/v1.41": "tcp://HOST:2375",
    "tcp://user@h:2375": "tcp://HOST:2375",
    "tcp://h:2375?x=1": "tcp://HOST:2375",
    "https://h:2376": "unix:///run/docker.sock",
    "ssh://h": "unix:///run/docker.sock",
    "fd://": "unix:///run/docker.sock",
    "npipe:////./pipe/docker_engine": "unix:///run/docker.sock",
    "nonsense://h:1": "unix:///run/docker.sock",
    "tcp://h :1": "unix:///run/docker.sock",
    "unix:///run/a\nb": "unix:///run/docker.sock",
    f"unix:///{'x' * 120}": "unix:///run/docker.sock",
}


@pytest.mark.parametrize("url", SUPPORTED)
def test_a_supported_address_is_understood_everywhere(url: str) -> None:
    assert engine_endpoint(url) == SUPPORTED[url]
    parsed = parse_config(f"[docker]\nurl = {json.dumps(url)}", origin="x")
    HttpClient(parsed.docker.url, 1.0)
    DockerCommands(parsed.docker.url, 1.0, pull_idle_s=1, pull_timeout_s=1).close()


@pytest.mark.parametrize("url", REFUSED)
def test_any_other_is_refused_everywhere_with_what_would_be_right(url: str) -> None:
    for refuse in (
        lambda: parse_config(f"[docker]\nurl = {json.dumps(url)}", origin="x"),
        lambda: HttpClient(url, 1.0),
    ):
        with pytest.raises(ConfigError) as refused:
            refuse()
        told = str(refused.value)
        assert "docker.url: " in told
        assert f'"{REFUSED[url]}"' in told
        assert told.isprintable()
        right = re.findall(r'write "([^"]+)"', told)[0].replace("HOST", "engine")
        assert engine_endpoint(right)


# --- over TCP


@contextmanager
def forwarded(family: int, address: str, path: Path) -> Iterator[int]:
    """A port that leads to a unix socket, as `socat TCP-LISTEN:…,fork UNIX-CONNECT:…`."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def carry(near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(str(path))
            back = threading.Thread(target=pump, args=(far, near))
            back.start()
            pump(near, far)
            back.join()

    def serve() -> None:
        with suppress(OSError):
            while True:
                carrier = threading.Thread(target=carry, args=(listener.accept()[0],))
                carrier.start()
                carriers.append(carrier)

    carriers: list[threading.Thread] = []
    with closing(socket.socket(family)) as listener:
        listener.bind((address, 0))
        listener.listen()
        acceptor = threading.Thread(target=serve)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (acceptor, *carriers):
                thread.join(60)


@pytest.mark.parametrize(
    ("family", "address", "host"),
    [
        (socket.AF_INET6, "::1", "[::1]"),
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", "localhost"),
    ],
)
def test_an_engine_is_reached_over_both_families(
    fake_engine: FakeEngine, family: int, address: str, host: str
) -> None:
    fake_engine.containers.add(NAME)
    with (
        forwarded(family, address, fake_engine.socket) as port,
        engine_at(f"tcp://{host}:{port}/", timeout_s=5) as (docker, _),
    ):
        assert set(seen(docker).by_name) == {NAME}


def test_a_name_that_cannot_be_resolved_is_said_so() -> None:
    with engine_at("tcp://no-such-host.invalid:1", watch=False) as (docker, _):
        answer = docker.observe(None)
        assert "cannot be resolved" in getattr(answer, "reason", "")


# --- what a user has configured for the docker command


@pytest.mark.parametrize(
    "content",
    [
        pytest.param('{"auths":{"registry.lab":{"auth":"bm9jb2xvbg=="}}}', id="no colon"),
        pytest.param('{"auths":{"registry.lab":{"auth":"%%%not base64%%%"}}}', id="not base64"),
        pytest.param('{"auths":{"registry.lab":null}}', id="null"),
        pytest.param('{"auths":[]}', id="a list"),
        pytest.param("{", id="not JSON"),
        pytest.param('{"credsStore":"desktop","HttpHeaders":7}', id="odd headers"),
        pytest.param('{"currentContext":"elsewhere"}', id="a context"),
    ],
)
def test_the_configuration_of_the_docker_command_is_not_read(
    fake_engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    home = tmp_path / ".docker"
    home.mkdir()
    (home / "config.json").write_text(content, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    for folder in (None, str(home)):
        if folder is None:
            monkeypatch.delenv("DOCKER_CONFIG", raising=False)
        else:
            monkeypatch.setenv("DOCKER_CONFIG", folder)
        with engine_at(fake_engine) as (docker, _):
            seen(docker)


def test_without_a_home_the_engine_is_asked_all_the_same(
    fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    with engine_at(fake_engine) as (docker, _):
        seen(docker)


@pytest.mark.parametrize("version", ['"latest"', '"../1.41"', "null", "7"])
def test_an_api_version_that_is_none_is_not_asked_for(
    fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    answer = fake_engine.version()
    monkeypatch.setattr(
        fake_engine, "version", lambda: {**answer, "ApiVersion": json.loads(version)}
    )
    with engine_at(fake_engine, watch=False) as (docker, _):
        unknown(docker)
    assert set(fake_engine.calls) == {"/version"}


@pytest.mark.parametrize(
    ("oldest", "newest", "asked"),
    [
        ("1.12", "1.41", "1.41"),  # Docker 20.10
        ("1.24", "1.51", "1.51"),  # 28.5
        ("1.44", "1.52", "1.51"),  # 29: what it dropped of the answers is in this one
        ("1.52", "1.60", "1.52"),  # one that speaks nothing we know
    ],
)
def test_the_newest_api_version_that_both_know_is_asked_for(
    fake_engine: FakeEngine, oldest: str, newest: str, asked: str
) -> None:
    fake_engine.api = (oldest, newest)
    fake_engine.fill(2)
    with engine_at(fake_engine) as (docker, _):
        assert len(seen(docker).containers) == 2
    assert set(fake_engine.versions) == {asked}


def test_an_engine_that_is_upgraded_is_asked_in_a_version_it_speaks(
    fake_engine: FakeEngine,
) -> None:
    with engine_at(fake_engine, watch=False) as (docker, _):
        seen(docker)
        fake_engine.api = ("1.44", "1.52")
        assert "client version 1.41 is too old" in unknown(docker)
        seen(docker)
    assert set(fake_engine.versions) == {"1.41", "1.51"}


def test_an_engine_that_does_not_say_what_it_spoke_before_is_asked(
    fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {k: v for k, v in fake_engine.version().items() if k != "MinAPIVersion"}
    monkeypatch.setattr(fake_engine, "version", lambda: answer)
    with engine_at(fake_engine, watch=False) as (docker, _):
        seen(docker)
    assert set(fake_engine.versions) == {"1.41"}
