"""`ds01ctl web`: serves the web page in the foreground, until it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from ds01d.cli.base.command import CONSISTENT, config_option, print_error
from ds01d.cli.base.context import Invocation
from ds01d.config import Config, WebConfig
from ds01d.config_checks import find_impossible
from ds01d.errors import ConfigError

if TYPE_CHECKING:
    from ds01d.reporting.http_server import BoundedServer

_DROP_IN: Final = "ds01d-web-remote.conf"


@click.command()
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="HOST:PORT of this host, or the path of a socket; by default web.listen.",
)
@config_option
@click.pass_obj
def web(invocation: Invocation, *, listen: str | None) -> int:
    """Serve a web page with slots, holders, drifts and the use of a week, until Ctrl-C.

    It only reads, and shows what its user may see. The service ds01d-web runs it.
    """
    from ds01d.cli.ctl.web_sources import open_content  # noqa: PLC0415 - heavy, as those below
    from ds01d.daemon.notify_socket import Notifier, open_notify_socket  # noqa: PLC0415
    from ds01d.reporting.http_server import BoundedServer  # noqa: PLC0415
    from ds01d.web.application import create_application, list_hosts, list_routes  # noqa: PLC0415
    from ds01d.web.page import build_page  # noqa: PLC0415

    try:
        config = _choose_address(invocation.config(), listen)
    except ConfigError as error:
        # decision 44: 78 keeps systemd from restarting a service that cannot start.
        print_error("ds01ctl", str(error))
        return os.EX_CONFIG
    content = open_content(invocation, config)
    routes = list_routes(build_page(), content.find_data, content.find_status)
    application = create_application(routes, list_hosts(config.web))
    address = config.web.address
    listener = _bind_address(config.web)
    try:
        server = BoundedServer(application, listener)
        _stop_on_signals(server)
        at = address if isinstance(address, Path) else f"http://{config.web.listen}/"
        click.echo(f"serving {at}", err=True)
        Notifier(open_notify_socket()).notify("READY=1")
        server.run()  # until it is stopped
    finally:
        listener.close()
        if isinstance(address, Path):
            address.unlink(missing_ok=True)
    return CONSISTENT


def _choose_address(config: Config, listen: str | None) -> Config:
    """The configuration with the address that is asked for. Raises `ConfigError`."""
    if listen is None and not config.web.listen:
        problem = "web.listen is empty: set it, or use --listen 127.0.0.1:9465"
        raise ConfigError(problem)
    if listen is None:
        return config
    chosen = msgspec.structs.replace(config, web=msgspec.structs.replace(config.web, listen=listen))
    for key, problem in find_impossible(chosen):
        if key == "web.listen":
            raise ConfigError(f"--listen: {problem}")
    return chosen


def _bind_address(web_config: WebConfig) -> socket.socket:
    """A socket at the configured address. Raises `ConfigError`."""
    from ds01d.reporting.http_server import bind_address, describe_failure  # noqa: PLC0415
    from ds01d.service.listening import listen_at  # noqa: PLC0415

    address = web_config.address
    if isinstance(address, Path):
        return listen_at(address, "web.listen")
    if address is None:
        raise ConfigError("web.listen is empty")
    try:
        return bind_address(address)
    except (OSError, ValueError) as error:  # ValueError: an invalid host name
        reason = describe_failure(error, _DROP_IN)
        raise ConfigError(f"web.listen: cannot listen at {web_config.listen}: {reason}") from error


def _stop_on_signals(server: BoundedServer) -> None:
    def stop(*_: object) -> None:
        # In a thread: the interrupted code may hold the lock of waitress' trigger.
        threading.Thread(target=server.request_stop, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
