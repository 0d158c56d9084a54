"""`ds01ctl quota`: for people and for scripts."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.documents.quota import OtherHosts, QuotaDocument
from ds01d.documents.values import DisplayTime
from ds01d.model.primitives import Wall
from tests.support.commands import Desk
from tests.support.sample_host import a_host

QUOTA = QuotaDocument(
    user="alice",
    group="staff",
    priority=50,
    unit="gpus",
    limit=2.0,
    used=1.2857,
    reserved=0.0,
    left=0.7143,
    slots_per_container=1,
    source="/opt/limits.yaml: groups.staff.max_gpu_equivalents",
    waiting=1,
    ahead=2,
)


@pytest.mark.parametrize(
    ("quota", "lines"),
    [
        (
            QUOTA,
            [
                "user alice",
                "group staff",
                "priority 50",
                "limit 2 GPUs",
                "held 1.2857 GPUs",
                "reserved 0 GPUs",
                "left 0.7143 GPUs",
                "per container 1 slot",
                "limit from /opt/limits.yaml: groups.staff.max_gpu_equivalents",
                "waiting ahead 2 calls",
                "waiting 1 call of this user",
            ],
        ),
        (
            QuotaDocument(
                user="bob", group="", priority=0, unit="slots", limit=None, used=1.0, reserved=1.0,
                left=None, slots_per_container=None, source="built in", waiting=0, ahead=0,
            ),
            [
                "user bob",
                "group -",
                "priority 0",
                "limit unlimited",
                "held 1 slot",
                "reserved 1 slot",
                "left unlimited",
                "limit from built in",
                "waiting ahead nobody",
            ],
        ),
    ],
)  # fmt: skip
def test_it_is_shown(tmp_path: Path, quota: QuotaDocument, lines: list[str]) -> None:
    desk, asked = Desk(host=a_host(), state_dir=tmp_path), list[str | None]()

    def read(_: object, user: str | None) -> QuotaDocument:
        asked.append(user)
        return quota

    environment = replace(desk.environment(), read_quota=read)
    result = CliRunner().invoke(ds01ctl, ["quota"], obj=environment)
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == lines
    result = CliRunner().invoke(ds01ctl, ["quota", "bob", "--json"], obj=environment)
    document = json.loads(result.stdout)
    assert document["left"] == quota.left
    assert document.pop("schema") == "quota/1.1"
    assert set(document) == set(QuotaDocument.__struct_encode_fields__)
    assert asked == [None, "bob"]


@pytest.mark.parametrize(
    ("other_hosts", "left", "lines"),
    [
        (
            OtherHosts(used=1.0, hosts=("gpu02",), at=DisplayTime(Wall(0.0)), problem=""),
            0.0,
            ["on other hosts 1 GPU on gpu02 (1 h ago)", "left 0 GPUs"],
        ),
        (
            OtherHosts(used=0.0, hosts=(), at=DisplayTime(Wall(0.0)), problem="etcd is away\x1b["),
            0.7143,
            [r"on other hosts 0 GPUs (1 h ago): etcd is away\x1b[", "left 0.7143 GPUs"],
        ),
        (
            OtherHosts(used=None, hosts=(), at=None, problem="not read yet"),
            0.7143,
            ["on other hosts unknown: not read yet", "left at most 0.7143 GPUs"],
        ),
        (
            OtherHosts(used=None, hosts=(), at=None, problem="not read yet"),
            0.0,
            ["on other hosts unknown: not read yet", "left 0 GPUs"],
        ),
    ],
)
def test_other_hosts_have_a_line_with_their_age_and_unknown_is_not_zero(
    tmp_path: Path, other_hosts: OtherHosts, left: float, lines: list[str]
) -> None:
    if other_hosts.at is not None:
        at = DisplayTime(Wall(time.time() - 3600))
        other_hosts = msgspec.structs.replace(other_hosts, at=at)
    quota = msgspec.structs.replace(QUOTA, other_hosts=other_hosts, left=left)
    desk = Desk(host=a_host(), state_dir=tmp_path)
    environment = replace(desk.environment(), read_quota=lambda *_: quota)
    result = CliRunner().invoke(ds01ctl, ["quota"], obj=environment)
    shown = [" ".join(line.split()) for line in result.stdout.splitlines()]
    # The command may be slow, and its minutes are not the claim.
    assert [re.sub(r"1 h \d+ m ago", "1 h ago", line) for line in shown[6:8]] == lines
