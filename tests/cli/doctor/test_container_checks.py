"""`doctor` says whether users can have containers, and as whom these run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ds01d.cli.doctor import container_checks
from ds01d.cli.doctor.container_checks import check_containers
from ds01d.config import Config, ContainersConfig, DaemonConfig, DockerConfig, ServiceConfig
from simulation.fake_engine import FakeEngine


@dataclass
class Remapping:
    """The answer of an engine that remaps users."""

    remaps_users: bool = True


def config_of(
    engine: FakeEngine, folder: Path, catalogue: str = "", *, root_in_containers: bool = False
) -> Config:
    file = folder / "frameworks.toml"
    file.write_text(catalogue, encoding="utf-8")
    return Config(
        docker=DockerConfig(url=engine.url),
        containers=ContainersConfig(frameworks=file),
        service=ServiceConfig(containers=True, root_in_containers=root_in_containers),
    )


def described(config: Config) -> tuple[str, str]:
    (check,) = check_containers(config)
    assert bool(check.fix) == (check.health != "ok")
    return check.health.value, check.detail


def test_as_whom_they_run(
    fake_engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert described(Config()) == (
        *("ok", "users need access to Docker for containers (service.containers is false)"),
    )
    plain = config_of(fake_engine, tmp_path)
    assert described(plain)[1].endswith("they run as their user, without capabilities")
    asked = config_of(fake_engine, tmp_path, root_in_containers=True)
    assert described(asked)[0] == "warn"
    monkeypatch.setattr(container_checks, "read_info", lambda _: Remapping())
    assert described(plain)[1].endswith("not root inside (root_in_containers)")
    assert described(asked)[1].endswith("root is possible inside")


def test_why_nobody_can_have_one(fake_engine: FakeEngine, tmp_path: Path) -> None:
    config = config_of(fake_engine, tmp_path, '[container]\nnetwork = "host"\n')
    assert "which no container of the service may have" in described(config)[1]
    Path(config.containers.frameworks).chmod(0o666)
    assert "users other than root can change" in described(config)[1]
    observing = Config(daemon=DaemonConfig(mode="observe"), service=ServiceConfig(containers=True))
    assert described(observing) == (*("warn", "not offered to users: daemon.mode is observe"),)
