"""Joins the parts of ds01d-notify: its spool, its targets and its messages. Holds no logic."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from ds01d.adapters.notices import webhook
from ds01d.adapters.notices.command import NoticeCommand
from ds01d.adapters.notices.delivery_file import FOLDER, DeliveryFile
from ds01d.adapters.notices.greetings import FOLDER as GREETINGS
from ds01d.adapters.notices.greetings import Greetings
from ds01d.adapters.notices.mail import Mail
from ds01d.adapters.notices.programs import adopt_orphans
from ds01d.adapters.notices.spool import SpoolReader, spool_folder
from ds01d.adapters.notices.terminals import Terminals
from ds01d.config import Config
from ds01d.config_file import load_config
from ds01d.daemon.notify_socket import Notifier, open_notify_socket
from ds01d.errors import ConfigError
from ds01d.folders import make_folder
from ds01d.notifier.delivery import Channel, Delivery
from ds01d.notifier.service import NoticeService, Target
from ds01d.notify_settings import parse_mail, parse_quiet_hours
from ds01d.text import make_printable

_REPEAT_S: Final = 3600.0
_MAX_TEXTS: Final = 100


def run_notifier(path: Path | None, environ: Mapping[str, str], group: str) -> int:
    """Run in the foreground until a signal ends it; the exit status. Raises `Ds01Error`.

    `group`: which targets, "local", "network" or "all".
    """
    if os.geteuid() == 0:
        # A command of the configuration would run as root, with texts that users have named.
        raise ConfigError("ds01d-notify does not run as root: start it by its unit")
    adopt_orphans()
    warn, systemd = Warnings(), Notifier(open_notify_socket(environ))
    config = load_config(path, environ)
    NoticeService(
        lambda: SpoolReader(spool_folder(config.daemon.state_dir)),
        lambda: open_targets(load_config(path, environ), environ, warn, group),
        warn,
        lambda status: systemd.notify("READY=1", f"STATUS={status}"),
    ).run()
    return 0


def open_targets(
    config: Config, environ: Mapping[str, str], warn: Callable[[str], None], group: str = "all"
) -> Sequence[Target]:
    """The targets of a configuration. Raises `Ds01Error`."""
    notify, host = config.notify, socket.gethostname()
    directory = environ.get("CREDENTIALS_DIRECTORY")
    credentials = Path(directory) if directory else None
    quiet = parse_quiet_hours(notify.quiet_hours) if notify.quiet_hours else None
    folder = notify.state_dir / FOLDER
    if notify.uses_sender:
        make_folder(folder, 0o755)

    def target(channel: Channel, *, rings: bool) -> Target:
        # Decision 265: what nobody hears needs no quiet hours.
        store = DeliveryFile(folder / f"{channel.name}.json")
        delivery = Delivery(channel, store, warn, quiet if rings else None)
        refresh = channel.refresh if isinstance(channel, Greetings) else None
        return Target(delivery=delivery, refresh=refresh)

    targets = []
    # Decision 262: a unit with a network has no terminals, and the other way round.
    if group != "network" and notify.terminals:
        targets.append(target(Terminals(host), rings=False))
    if group != "network" and notify.greetings:
        targets.append(target(Greetings(notify.state_dir / GREETINGS), rings=False))
    if group == "local":
        return targets
    if notify.command:
        targets.append(target(NoticeCommand(Path(notify.command), host), rings=True))
    if notify.mail:
        mail = Mail(parse_mail(notify.mail), notify.mail_domain, host)
        targets.append(target(mail, rings=True))
    if notify.webhook:
        find_address = partial(webhook.find_address, notify.webhook, credentials)
        find_token = partial(webhook.find_token, credentials)
        sender = webhook.Webhook(find_address, find_token, notify.webhook_form, host)
        targets.append(target(sender, rings=True))
    return targets


class Warnings:
    """Writes warnings to stderr, as the journal takes priorities; the same one once an hour."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written_at: dict[str, float] = {}

    def __call__(self, text: str) -> None:
        now = self._clock()
        recent = self._written_at.items()
        self._written_at = {text: at for text, at in recent if now - at < _REPEAT_S}
        line = make_printable(text)[:1000]
        if line in self._written_at:
            return
        # Bounded: texts may have names of users in them, who would fill the journal with them.
        if len(self._written_at) > _MAX_TEXTS:
            return
        if len(self._written_at) == _MAX_TEXTS:
            line = f"more than {_MAX_TEXTS} different warnings in an hour: others are left out"
        self._written_at[line] = now
        with suppress(OSError, ValueError):
            sys.stderr.write(f"<4>{line}\n")
            sys.stderr.flush()
