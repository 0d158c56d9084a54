"""The WSGI application: which request gets what, with which headers.

Answers GET and HEAD alone, and only who asks for this host by one of its names: a page of somebody
else whose name resolves to this address (DNS rebinding) gets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ds01d.config import WebConfig
from ds01d.reporting.http_server import Application
from ds01d.web.bodies import TEXT, Body
from ds01d.web.page import Page

LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),  # for browsers that do not know frame-ancestors
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    # Who reads it again asks whether it has changed; no shared cache keeps it.
    ("Cache-Control", "private, no-cache"),
)
_EVERY_ADDRESS: Final = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - it is left out
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What is served at a path. `policy`: its Content-Security-Policy."""

    find_body: Callable[[], Body]
    policy: str = _NOTHING


def list_routes(
    page: Page, find_data: Callable[[], Body], find_status: Callable[[], Body]
) -> Mapping[str, Route]:
    """The paths that there are. `find_data`: what the page polls; `find_status`: the document."""
    return {
        "/": Route(find_body=lambda: page.body, policy=page.policy),
        "/page.json": Route(find_body=find_data),
        "/status.json": Route(find_body=find_status),
    }


def create_application(routes: Mapping[str, Route], hosts: Collection[str]) -> Application:
    """The application; `hosts`: the names without port under which it may be asked."""
    names = frozenset(name.lower() for name in hosts)

    def serve_request(
        environ: Mapping[str, Any], start_response: Callable[..., object]
    ) -> Iterator[bytes]:
        answer = _find_answer(environ, routes, names)
        start_response(answer.status, [*_HEADERS, *answer.headers])
        is_head = environ["REQUEST_METHOD"] == "HEAD"
        # An iterator has no length, so waitress ends the connection: one answer for each.
        return iter((b"" if is_head else answer.content,))

    return serve_request


def list_hosts(settings: WebConfig) -> Collection[str]:
    """The names under which the page may be asked for: those of this host, and those configured."""
    names = {*LOCAL_NAMES, *settings.hosts}
    # The address itself, as readers type it. One that means every address is no name.
    if isinstance(settings.address, tuple):
        names.add(settings.listen.rpartition(":")[0])
    return {name.lower() for name in names} - _EVERY_ADDRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: str
    headers: tuple[tuple[str, str], ...]
    content: bytes = b""


def _find_answer(
    environ: Mapping[str, Any], routes: Mapping[str, Route], names: Collection[str]
) -> _Answer:
    # The host comes first: who is at the wrong one does not even get to know which paths there are.
    host = strip_port(environ.get("HTTP_HOST", ""))
    if host not in names:
        text = "unknown host name: see web.hosts in docs/web.md\n"
        return _refuse("421 Misdirected Request", text)
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return _refuse("405 Method Not Allowed", "read-only\n", ("Allow", "GET, HEAD"))
    route = routes.get(environ["PATH_INFO"])
    if route is None:
        return _refuse("404 Not Found", f"not here: see {', '.join(routes)}\n")
    body = route.find_body()
    packed = body.packed if _accepts_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")) else None
    etag = body.etag if packed is None else body.packed_etag
    headers: tuple[tuple[str, str], ...] = (
        ("Content-Security-Policy", route.policy),
        ("ETag", etag),
        ("Vary", "Accept-Encoding"),
    )
    if _has_match(environ.get("HTTP_IF_NONE_MATCH", ""), etag):
        return _Answer(status="304 Not Modified", headers=headers)
    headers = (("Content-Type", body.content_type), *headers)
    if packed is None:
        return _Answer(status="200 OK", headers=headers, content=body.content)
    packing = ("Content-Encoding", "gzip")
    return _Answer(status="200 OK", headers=(packing, *headers), content=packed)


def _refuse(status: str, text: str, *headers: tuple[str, str]) -> _Answer:
    standard = (("Content-Type", TEXT), ("Content-Security-Policy", _NOTHING))
    return _Answer(status=status, headers=(*standard, *headers), content=text.encode())


def strip_port(host: str) -> str:
    """The host of a Host header, in lower case; an IPv6 address keeps its brackets."""
    host = host.strip().lower()
    name, separator, port = host.rpartition(":")
    # An IPv6 address ends in a bracket, so a colon behind it is that of the port.
    if separator and (port.isdigit() or not port) and (":" not in name or name.endswith("]")):
        host = name
    return host.removesuffix(".")


def _accepts_gzip(accepted: str) -> bool:
    for choice in accepted.lower().split(","):
        coding, _, weight = choice.partition(";")
        # RFC 9110, 12.4.2: a weight of 0 means that it is not accepted.
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _has_match(condition: str, etag: str) -> bool:
    """Whether If-None-Match names it, by weak comparison (a proxy may have made it weak)."""
    tags = {tag.strip().removeprefix("W/") for tag in condition.split(",")}
    return etag in tags or "*" in tags
