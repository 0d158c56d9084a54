"""A webhook: one POST for a notice, whatever the server does, and no secret in any message."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ds01d.adapters.notices import webhook
from ds01d.adapters.notices.webhook import Webhook, format_notice
from ds01d.errors import DeliveryFailed
from ds01d.notify_settings import WebAddress
from simulation.ports import find_free_port
from tests.support.notices import (
    AT,
    HOSTILE,
    LOGIN,
    Server,
    answering,
    notice,
    read_request,
    serving,
)

SECRET = "T00/B00/sesame"
TIMEOUT_S = 0.5


def sender(port: int, *, token: str = "", **extra: Any) -> Webhook:
    address = WebAddress(is_tls=False, host="127.0.0.1", port=port, target=f"/services/{SECRET}")
    options = {"form": "json", "host": "gpu01", "timeout_s": 10.0, **extra}
    return Webhook(lambda: address, lambda: token, **options)


def failure(one: Webhook) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        one.send(notice())
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


def test_a_notice_is_one_post_with_its_id_and_the_token() -> None:
    with serving(answering("204 No Content")) as server:
        sender(server.port, token="open").send(notice(until=AT + 300))
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == f"POST /services/{SECRET} HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in lines
    assert "Authorization: Bearer open" in lines
    assert f'Idempotency-Key: "{notice().id}"' in lines
    assert json.loads(body) == {
        "version": 1,
        "id": notice().id,
        "host": "gpu01",
        "kind": "gpu_hold_ending",
        "time": AT,
        "user": LOGIN,
        "container": "train._.1001",
        "slots": ["1.0"],
        "until": AT + 300,
        "message": notice().message,
    }


@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        ("400 Bad Request", True),
        ("404 Not Found", True),
        ("429 Too Many Requests", False),
        ("500 Internal Server Error", False),
        ("503 Service Unavailable", False),
    ],
)
def test_what_may_pass_is_tried_again_and_what_will_not_is_not(status: str, is_final: bool) -> None:
    with serving(answering(status, b"no \x1b[31m\xff")) as server:
        error = failure(sender(server.port))
    assert error.is_final is is_final
    assert str(error).startswith(f"webhook: HTTP {status[:3]}: no ")


def test_a_redirect_is_not_followed() -> None:
    with serving(answering("204 No Content")) as other:
        there = f"Location: http://127.0.0.1:{other.port}/"
        for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
            with serving(answering(status, b"", there)) as server:
                error = failure(sender(server.port, token="open"))
            assert error.is_final
            assert "redirect" in str(error)
        assert other.requests == []


def test_a_server_that_refuses_is_tried_again() -> None:
    assert not failure(sender(find_free_port())).is_final


def hang_at_once(connection: socket.socket, _server: Server) -> None:
    connection.recv(1)
    threading.Event().wait(20.0)


def drip_headers(connection: socket.socket, _server: Server) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(400):
        connection.sendall(b"X: y\r\n"[:1])
        time.sleep(0.05)


def drip_body(connection: socket.socket, _server: Server) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(400):
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [hang_at_once, drip_headers, drip_body])
def test_a_server_that_never_comes_to_an_end_costs_the_timeout(
    answer: Callable[[socket.socket, Server], None],
) -> None:
    with serving(answer) as server:
        began = time.monotonic()
        with suppress(DeliveryFailed):  # a status that is there counts
            sender(server.port, timeout_s=TIMEOUT_S).send(notice())
        # Far less than the 20 s that each of them would last, on a busy machine too.
        assert time.monotonic() - began < 10.0


def test_of_an_endless_answer_a_bounded_part_is_read() -> None:
    sent = 0

    def flood(connection: socket.socket, _server: Server) -> None:
        nonlocal sent
        read_request(connection)
        connection.sendall(b"HTTP/1.1 500 No\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65536)

    with serving(flood) as server:
        error = failure(sender(server.port))
    assert str(error) == f"webhook: HTTP 500: {'x' * 100}"
    assert sent < 32 * 2**20  # the buffers of both sockets


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, with its key."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
    ]
    names = ["subjectAltName=DNS:localhost"]
    made = subprocess.run(
        [*command, *names, "-keyout", "-", "-out", "-"], check=True, capture_output=True
    )
    file.write_bytes(made.stdout)
    return file


def test_tls_is_verified(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def answer(connection: socket.socket, server: Server) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            answering("204 No Content")(encrypted, server)

    def post(host: str, trusted: Path | None) -> None:
        address = WebAddress(is_tls=True, host=host, port=server.port, target="/")
        one = Webhook(lambda: address, lambda: "", "json", "gpu01", trusted=trusted)
        one.send(notice())

    with serving(answer) as server:
        post("localhost", certificate)
        with pytest.raises(DeliveryFailed, match="certificate"):
            post("localhost", None)
        # The name is verified, too: the address is right, and the certificate has another one.
        with pytest.raises(DeliveryFailed, match=r"(?i)ip address|certificate"):
            post("127.0.0.1", certificate)
    assert len(server.requests) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_text_in_every_form(text: str) -> None:
    hostile = notice(user=text, container=text, slots=(text,), message=text)
    for form in ("json", "slack", "teams"):
        body = json.dumps(format_notice(hostile, form, "gpu01"))
        assert not set("\x1b\x9b\x07\0\n\r\u202e") & set(json.loads(body).get("text", ""))
    slack = format_notice(hostile, "slack", "gpu01")["text"]
    assert isinstance(slack, str)
    assert "<" not in slack
    assert ">" not in slack
    teams: Any = format_notice(hostile, "teams", "gpu01")
    (block,) = teams["attachments"][0]["content"]["body"]
    assert block["type"] == "RichTextBlock"
    assert {run["type"] for run in block["inlines"]} == {"TextRun"}
    with serving(answering("200 OK")) as server:
        sender(server.port).send(hostile)
    body = server.requests[0].partition(b"\r\n\r\n")[2].decode()
    assert body.isprintable()
    assert json.loads(body)["version"] == 1


def test_an_address_and_a_token_come_from_files_that_no_message_shows(tmp_path: Path) -> None:
    (tmp_path / "webhook").write_text(f"https://hooks.example.org/services/{SECRET}\n")
    (tmp_path / "webhook-token").write_text("open\n")
    for value, credentials in (("credential", tmp_path), (str(tmp_path / "webhook"), None)):
        found = webhook.find_address(value, credentials)
        assert found == WebAddress(True, "hooks.example.org", 443, f"/services/{SECRET}")
    assert webhook.find_token(tmp_path) == "open"
    assert webhook.find_token(None) == ""
    for broken in (f"http://hooks.example.org/{SECRET}", f"{SECRET}\nmore", "", "x" * 5000):
        (tmp_path / "webhook").write_text(broken)
        with pytest.raises(DeliveryFailed) as caught:
            webhook.find_address("credential", tmp_path)
        assert SECRET not in str(caught.value)
        assert str(tmp_path / "webhook") in str(caught.value)
    with pytest.raises(DeliveryFailed, match="LoadCredential=webhook:"):
        webhook.find_address("credential", None)
