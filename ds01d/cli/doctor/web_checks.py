"""Checks of the web page: whether somebody serves what is configured."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ds01d.cli.doctor.source_checks import Check, ok, warn
from ds01d.config import Config
from ds01d.errors import Ds01Error
from ds01d.model.fleet import HOSTS_UNIT, HostState
from ds01d.text import format_count, format_span

UNIT: Final = "ds01d-web.service"
_PATIENCE_S: Final = 6.0  # the page itself may have to wait for ds01d


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE_S)
        self.sock.connect(str(self._path))


def check_web(config: Config) -> Iterator[Check]:
    """Ask for the page once, where there is to be one. Changes nothing."""
    address = config.web.address
    if address is None:
        return
    if config.fleet.hosts or config.fleet.hosts_file:
        yield _check_view(config)
    if isinstance(address, Path):
        connection: http.client.HTTPConnection = _SocketConnection(address)
        shown = str(address)
    else:
        # Who listens at every address is asked at that of this host.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104
        connection = http.client.HTTPConnection(host, address[1], timeout=_PATIENCE_S)
        shown = f"http://{config.web.listen}/"
    try:
        # By a name that it answers to in any case.
        connection.request("HEAD", "/", headers={"Host": "localhost"})
        reply = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        fix = f"systemctl enable --now {UNIT}; journalctl -u {UNIT}"
        # Off by default, so an administrator who has set an address has still to enable the unit.
        yield warn("web page", f"not served at {shown}: {error}", fix)
        return
    finally:
        connection.close()
    if reply.getheader("Server") != "ds01d" or reply.status != http.HTTPStatus.OK:
        detail = f"{shown} answers with {reply.status}, and not as ds01d does"
        yield warn("web page", detail, "choose another web.listen, or stop what listens there")
    else:
        yield ok("web page", f"served at {shown}")


def _check_view(config: Config) -> Check:
    """Whether the page knows of other hosts: it asks none itself."""
    from ds01d.adapters.fleet.view_file import read_view  # noqa: PLC0415 - only with [fleet]
    from ds01d.decide.fleet_hosts import find_view_end  # noqa: PLC0415 - as above

    fix = f"systemctl enable --now {HOSTS_UNIT}; journalctl -u {HOSTS_UNIT}"
    try:
        view = read_view(config.fleet.view_file)
    except Ds01Error as error:
        return warn("all hosts", f"the web page knows of no other host: {error}", fix)
    now = time.time()
    age = format_span(max(0.0, now - view.viewed_at))
    if now > find_view_end(view):
        return warn("all hosts", f"the web page knows of other hosts what was so {age} ago", fix)
    unknown = sum(host.state is not HostState.OK for host in view.hosts)
    detail = f"asked {age} ago, {format_count(len(view.hosts), 'host')}, {unknown} unknown"
    if unknown == 0:
        return ok("all hosts", detail)
    return warn("all hosts", detail, f"see journalctl -u {HOSTS_UNIT}")
