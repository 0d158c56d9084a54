"""What a request gets: headers, names of hosts, validators; and what the page may do."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ds01d.config import WebConfig
from ds01d.reporting.http_server import BoundedServer, bind_address
from ds01d.service.listening import listen_at
from ds01d.web.application import create_application, list_hosts, list_routes, strip_port
from ds01d.web.bodies import JSON, Body
from ds01d.web.page import build_page
from tests.support.web import request

DATA = Body(json.dumps({"filler": "x" * 3000}).encode(), JSON)
SMALL = Body(b"{}", JSON)


@contextmanager
def served(
    settings: WebConfig | None = None, path: Path | None = None, *, patience_s: float = 20.0
) -> Iterator[int | Path]:
    """The application in a thread, at a port or at a socket."""
    settings = settings or WebConfig(listen="127.0.0.1:9465")
    routes = list_routes(build_page(), lambda: DATA, lambda: SMALL)
    listener = bind_address(("127.0.0.1", 0)) if path is None else listen_at(path, "web.listen")
    application = create_application(routes, list_hosts(settings))
    server = BoundedServer(application, listener, patience_s)
    where = path or int(listener.getsockname()[1])
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield where
    finally:
        server.request_stop()
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def where() -> Iterator[int | Path]:
    with served() as found:
        yield found


def test_there_are_three_paths_and_no_other(where: int) -> None:
    assert request(where).headers["content-type"] == "text/html; charset=utf-8"
    assert request(where, "/page.json?x=1").body == DATA.content
    assert request(where, "/status.json").body == b"{}"
    for path in ("/page.js", "/../etc/passwd", "/status.json/", "/%2e%2e/", "/metrics"):
        assert request(where, path).status == 404, path


def test_it_can_only_be_read(where: int) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "X"):
        reply = request(where, "/status.json", method=method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD"), method
    head = request(where, "/status.json", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["etag"] == request(where, "/status.json").headers["etag"]


@pytest.mark.parametrize("path", ["/", "/page.json", "/status.json", "/none"])
def test_every_answer_forbids_what_no_reader_needs(where: int, path: str) -> None:
    headers = request(where, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "private, no-cache"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "access-control-allow-origin" not in headers


def test_the_policy_has_the_hashes_of_what_is_in_the_page(where: int) -> None:
    reply = request(where)
    text = reply.body.decode()
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in reply.headers["content-security-policy"]
    assert "<noscript>" in text, "who has no scripts is told of ds01ctl status"
    # Nothing is loaded from elsewhere, and nothing is run by an attribute.
    assert not re.findall(r'(?:src|href)="(?!data:,|status\.json)', text.partition("<script>")[0])
    assert not re.findall(r"\bon\w+=|javascript:|innerHTML|insertAdjacent|document\.write", text)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8080", 200), ("127.0.0.1", 200), ("[::1]:1", 200),
        ("localhost.", 200), ("gpu.example.org", 200), ("gpu.example.org:443", 200),
        ("evil.example", 421), ("localhost.evil.example", 421), ("", 421), ("0.0.0.0:9465", 421),
        ("127.0.0.1.nip.io", 421), ("[::1].evil", 421), ("gpu.example.org@evil", 421),
        ("127.0.0.1:80:80", 421), ("localhost\tx", 421),
    ],
)  # fmt: skip
def test_only_names_of_this_host_are_answered(host: str, status: int) -> None:
    settings = WebConfig(listen="127.0.0.1:9465", hosts=("gpu.example.org",))
    with served(settings) as where:
        assert request(where, "/status.json", Host=host).status == status
        assert request(where, "/none", Host=host).status == (404 if status == 200 else 421)


def test_a_remote_address_is_a_name_unless_it_means_all() -> None:
    assert "192.0.2.7" in list_hosts(WebConfig(listen="192.0.2.7:80", remote=True))
    assert "0.0.0.0" not in list_hosts(  # noqa: S104 - it is not listened at
        WebConfig(listen="0.0.0.0:80", remote=True)
    )
    assert "[::]" not in list_hosts(WebConfig(listen="[::]:80", remote=True))
    assert "[2001:db8::1]" in list_hosts(WebConfig(listen="[2001:DB8::1]:80", remote=True))
    assert strip_port("[2001:db8::1]:80") == "[2001:db8::1]"
    assert strip_port("2001:db8::1") == "2001:db8::1"


def test_who_has_it_already_gets_nothing_again(where: int) -> None:
    first = request(where, "/page.json")
    again = request(where, "/page.json", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert "content-security-policy" in again.headers
    weak = f'"other", W/{first.headers["etag"]}'
    assert request(where, "/page.json", If_None_Match=weak).status == 304
    assert request(where, "/page.json", If_None_Match='"other"').status == 200


def test_it_is_packed_for_who_can_unpack_it(where: int) -> None:
    packed = request(where, "/page.json", Accept_Encoding="br;q=0, GZIP")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == DATA.content
    assert len(packed.body) < len(DATA.content) / 10
    plain = request(where, "/page.json", Accept_Encoding="gzip;q=0")
    assert plain.body == DATA.content
    assert plain.headers["etag"] != packed.headers["etag"]
    assert "content-encoding" not in request(where, "/status.json", Accept_Encoding="gzip").headers


def test_it_listens_at_a_socket_that_a_web_server_may_use(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    with served(WebConfig(listen=str(path)), path) as where:
        assert request(where, "/status.json").body == b"{}"
        assert path.stat().st_mode & 0o777 == 0o666


def test_a_slow_client_of_a_socket_is_cut_off(tmp_path: Path) -> None:
    import socket  # noqa: PLC0415 - the one test that needs it

    path = tmp_path / "page.sock"
    with (
        served(WebConfig(listen=str(path)), path, patience_s=3.0) as where,
        socket.socket(socket.AF_UNIX) as slow,
    ):
        slow.settimeout(60)
        slow.connect(str(path))
        slow.sendall(b"GET / HT")
        assert request(where).status == 200
        with suppress(ConnectionError):
            assert slow.recv(1) == b""


def test_a_large_request_is_refused(where: int) -> None:
    assert request(where, "/" + "x" * 20_000).status in (400, 414, 431)
    assert request(where, X_Filler="x" * 20_000).status == 431
