"""`container-create --dry-run` on a host that shares its quotas with others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from click.testing import CliRunner

from ds01d.cli.containers import creation
from ds01d.cli.containers.main import create
from ds01d.config import Config, FleetConfig
from ds01d.containers.preview import CreationPlan
from ds01d.documents.quota import OtherHosts, QuotaDocument
from ds01d.errors import Refused
from ds01d.model.primitives import ContainerName
from tests.support.commands import Desk
from tests.support.sample_host import a_host

FLEET = FleetConfig(etcd=("http://127.0.0.1:1",))
QUOTA = QuotaDocument(
    user="alice", group="", priority=0, unit="slots", limit=2.0, used=0.0, reserved=0.0, left=0.0,
    slots_per_container=None, source="limits",
    other_hosts=OtherHosts(used=2.0, hosts=("gpu02", "gpu03"), at=None, problem=""),
)  # fmt: skip
PLAN = CreationPlan(
    name=ContainerName("train._.1001"), user="alice", framework="pytorch", image="pytorch:1",
    is_present=True, gpus=["1.0 (GPU-1)"], command=[], mounts=[], start=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("fleet", "plan", "answer", "lines"),
    [
        (FLEET, PLAN, QUOTA, ["on other hosts 2 slots on gpu02, gpu03", "quota left 0 slots"]),
        (FLEET, PLAN, "no group", ["on other hosts unknown: no group"]),
        (FLEET, PLAN, msgspec.structs.replace(QUOTA, other_hosts=None), []),
        # Nobody is asked.
        (FLEET, replace(PLAN, gpus=[]), None, []),
        (FleetConfig(), PLAN, None, []),
    ],
)
def test_it_shows_what_is_left_over_all_hosts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fleet: FleetConfig,
    plan: CreationPlan,
    answer: QuotaDocument | str | None,
    lines: list[str],
) -> None:
    @contextmanager
    def open_commands(_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(preview_container=lambda _: plan)

    def read_quota(_: Config, user: str | None) -> QuotaDocument:
        assert answer is not None
        assert user == "alice"
        if isinstance(answer, str):
            raise Refused(answer)
        return answer

    monkeypatch.setattr(creation, "open_commands", open_commands)
    desk = Desk(host=a_host(), state_dir=tmp_path)
    desk.config = msgspec.structs.replace(desk.config, fleet=fleet)
    environment = replace(desk.environment(), read_quota=read_quota)
    result = CliRunner().invoke(create, ["train", "pytorch", "--dry-run"], obj=environment)
    assert result.exit_code == 0, result.output
    shown = [" ".join(line.split()) for line in result.stdout.splitlines()]
    begin = next(number for number, line in enumerate(shown) if line.startswith("GPUs"))
    assert shown[begin + 1 : begin + 1 + len(lines)] == lines
    assert shown[begin + 1 + len(lines)].startswith("command")
