"""The real commands over a host in memory, or over files of a temporary directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ds01d.cli.base import caller
from ds01d.cli.base.context import Environment
from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.config import Config, DaemonConfig, GpuConfig
from ds01d.model.actor import Actor
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.ports import World
from tests.support.schemas import check_document
from tests.support.world import Host


@dataclass
class Desk:
    """A person in front of `host`: `call` runs a command as they would type it.

    Whoever waits makes the host's time pass; `meanwhile` is called at each such pause. The other
    functions take the place of the environment's.
    """

    host: Host
    state_dir: Path
    config: Config = field(default_factory=Config)
    pauses: list[float] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    load_config: Callable[[Path | None], Config] | None = None
    open_world: Callable[[Config], AbstractContextManager[World]] | None = None
    engine_version: Callable[[Config], str] = lambda _: "20.10.24"

    def __post_init__(self) -> None:
        self.config = Config(
            gpu=GpuConfig(source="nvml" if self.host.gpu is not None else "none"),
            daemon=DaemonConfig(state_dir=self.state_dir),
        )

    def call(
        self,
        *words: str,
        command: click.Command = ds01ctl,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        result = CliRunner().invoke(command, list(words), obj=self.environment(), env=env)
        # Every test with a document shows that it is as its schema says.
        if "--json" in words and "--follow" not in words and result.stdout:
            check_document(json.loads(result.stdout))
        return result

    def json(self, *words: str) -> Any:
        """The document, without the version of its schema."""
        document = json.loads(self.call(*words, "--json").stdout)
        del document["schema"]
        return document

    def environment(self) -> Environment:
        return Environment(
            load_config=self.load_config or (lambda _: self.config),
            open_world=self.open_world or self._open,
            read_history=lambda _: iter(self.host.history),
            make_state_dir=lambda _: None,
            engine_version=self.engine_version,
            sleep=self._sleep,
            open_allocator=self._allocator,
            open_container_services=self._services,
        )

    @contextmanager
    def _open(self, _: Config) -> Iterator[World]:
        yield self.host.world()

    @contextmanager
    def _services(self, _: Config) -> Iterator[Any]:
        """What lists containers; nothing here changes one."""
        yield SimpleNamespace(world=self.host.world())

    @contextmanager
    def _allocator(self, config: Config) -> Iterator[Allocator]:
        yield Allocator(self.host.world(), config)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.host.pass_time(seconds)
        self.meanwhile()


def by_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands be called by ada, through sudo."""
    actor = Actor(uid=0, login="root", pid=77, sudo_uid=1001, sudo_login="ada")
    monkeypatch.setattr(caller, "current_actor", lambda: actor)
