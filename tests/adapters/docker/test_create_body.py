"""What Docker is told to create, and what an inspected container has beyond its confinement."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ds01d.adapters.docker.create_body import build_create_body, find_excess
from ds01d.errors import Malformed
from ds01d.model.confinement import Confinement, Mount
from ds01d.model.creation import Plan, Setup
from ds01d.model.limits import ResourceLimits
from ds01d.model.primitives import ContainerName, DeviceUuid

CONFINED = Confinement(
    user="2001:2001", groups=(100,), mounts=(Mount(source="/home/amy", target="/me"),)
)


def body(**changes: Any) -> dict[str, Any]:
    plan = Plan(
        name=ContainerName("a._.2001"), image="img", labels={}, devices=[DeviceUuid("MIG-1")]
    )
    return build_create_body(replace(plan, **changes))


def inspected(told: dict[str, Any], **changes: Any) -> bytes:
    """As Docker answers for a container that it was told to create."""
    filled = {
        "NetworkMode": "bridge",
        "Runtime": "runc",
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "LogConfig": {"Type": "json-file", "Config": {}},
        "MaskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        "ReadonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
    }
    host = filled | told["HostConfig"] | changes
    return json.dumps({"HostConfig": host, "Config": told}).encode()


def excess(data: bytes) -> tuple[str, ...]:
    return find_excess(data, CONFINED, default_runtime="runc")


def test_what_it_is_told_is_no_excess() -> None:
    for devices in ([], [DeviceUuid("MIG-1")]):
        told = body(confinement=CONFINED, devices=devices, resources=ResourceLimits(cpus=2.0))
        assert excess(inspected(told)) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"SomethingNew": True},
        {"Annotations": {"cdi.k8s.io/x": "nvidia.com/gpu=all"}},
        {"Privileged": True},
        {"CapAdd": ["SYS_ADMIN"]},
        {"CapDrop": ["NET_RAW"]},
        {"SecurityOpt": None},
        {"GroupAdd": ["0"]},
        {"NetworkMode": "container:x"},
        {"Runtime": "nvidia"},
        {"RestartPolicy": {"Name": "unless-stopped"}},
        {"MaskedPaths": ["/proc/kcore"]},
        {"ReadonlyPaths": None},
        {"VolumesFrom": ["x"]},
        {"Mounts": [{"Type": "bind", "Source": "/home/amy", "Target": "/etc"}]},
        {"Mounts": [{"Type": "volume", "Source": "/home/amy", "Target": "/me"}]},
        {"Mounts": [{"Type": "bind", "Source": "/home/amy", "Target": "/me", "BindOptions": {}}]},
        {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["x/y=z"]}]},
        {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]},
    ],
)
def test_excess_is_named(changes: dict[str, Any]) -> None:
    assert excess(inspected(body(confinement=CONFINED), **changes)) == tuple(changes)


def test_a_mount_that_may_only_be_read() -> None:
    mounts = (Mount(source="/data", target="/data", read_only=True),)
    confined = Confinement(user="2001:2001", mounts=mounts)
    told = body(confinement=confined)
    assert find_excess(inspected(told), confined, default_runtime="runc") == ()
    written = [{"Type": "bind", "Source": "/data", "Target": "/data", "ReadOnly": False}]
    data = inspected(told, Mounts=written)
    assert find_excess(data, confined, default_runtime="runc") == ("Mounts",)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"HostConfig": 1, "Config": {}}'])
def test_what_is_no_answer_is_no_container_without_excess(data: bytes) -> None:
    with pytest.raises(Malformed):
        excess(data)


def test_limits() -> None:
    limits = ResourceLimits(
        cpus=1.5, memory=1 << 30, memory_swap=-1, shm_bytes=1 << 20, pids=7, slice="a-b.slice"
    )
    host = body(resources=limits, setup=Setup(shm_bytes=16 << 20))["HostConfig"]
    assert host["CpuQuota"] / host["CpuPeriod"] == 1.5
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (1 << 30, -1, 7)
    assert (host["ShmSize"], host["CgroupParent"]) == (1 << 20, "a-b.slice")
    free = body()["HostConfig"]
    assert not {"CpuQuota", "Memory", "MemorySwap", "PidsLimit", "ShmSize"} & free.keys()
