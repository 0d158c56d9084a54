"""--any-host, --host and --not-host: the options that choose other hosts. Asks none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from ds01d.cli.base import completion
from ds01d.model.fleet import HostName, HostWish

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """--any-host, --host and --not-host as given."""

    any_host: bool
    hosts: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def is_given(self) -> bool:
        return self.any_host or bool(self.hosts) or bool(self.without)

    @property
    def only_host(self) -> HostName | None:
        """The one host that was named, if it was one."""
        return HostName(self.hosts[0]) if len(self.hosts) == 1 else None

    @property
    def wish(self) -> HostWish:
        """Raises a usage error where they contradict."""
        if self.any_host and self.hosts:
            raise click.UsageError("--any-host and --host contradict")
        if self.hosts and self.without:
            raise click.UsageError("--host and --not-host contradict")
        return HostWish(
            only=tuple(map(HostName, self.hosts)), without=tuple(map(HostName, self.without))
        )


def host_options(command: _Command) -> _Command:
    """The options that choose hosts; the command gets `any_host`, `hosts` and `without`."""
    # In reverse, as decorators are applied: --any-host comes first in --help.
    for option in (
        click.option(
            "--not-host",
            "without",
            multiple=True,
            metavar="HOST",
            shell_complete=completion.hosts,
            help="On any host of [fleet] but this one; may be repeated.",
        ),
        click.option(
            "--host",
            "hosts",
            multiple=True,
            metavar="HOST",
            shell_complete=completion.hosts,
            help="On this host of [fleet], over ssh; may be repeated.",
        ),
        click.option(
            "--any-host",
            is_flag=True,
            help="On whichever host of [fleet] has a free GPU, over ssh.",
        ),
    ):
        command = option(command)
    return command
