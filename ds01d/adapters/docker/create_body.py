"""What Docker is asked to create, and what a container has beyond its confinement.

Whatever a container has that is not named here is excess: a later Docker may give more with a key
that nobody here knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ds01d.adapters.docker.decoding import decode_answer
from ds01d.model.confinement import Confinement
from ds01d.model.creation import Plan, Setup
from ds01d.model.limits import ResourceLimits

_CPU_PERIOD_US: Final = 100_000
_NO_GPU: Final = "NVIDIA_VISIBLE_DEVICES=void"
_NO_NEW_PRIVILEGES: Final = "no-new-privileges"

# Of HostConfig: what may have any value, since it gives nothing but a share of the host.
_HARMLESS: Final = frozenset(
    (
        *("BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioWeight"),
        *("BlkioDeviceWriteIOps", "BlkioWeightDevice", "CgroupParent", "ConsoleSize", "CpuCount"),
        *("CpuPercent", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime"),
        *("CpuShares", "CpusetCpus", "CpusetMems", "Dns", "DnsOptions", "DnsSearch", "Init"),
        *("IOMaximumBandwidth", "IOMaximumIOps", "Isolation", "KernelMemory", "KernelMemoryTCP"),
        *("LogConfig", "Memory", "MemoryReservation", "MemorySwap", "MemorySwappiness"),
        *("NanoCpus", "OomKillDisable", "PidsLimit", "ReadonlyRootfs", "ShmSize", "Ulimits"),
    )
)
# What every engine hides or protects; one that does so with more is no excess.
_MASKED: Final = frozenset({"/proc/kcore", "/proc/keys", "/sys/firmware"})
_READ_ONLY: Final = frozenset({"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"})
_NETWORK: Final = re.compile(r"(?!host$)[A-Za-z0-9][A-Za-z0-9_.-]*")


def build_create_body(plan: Plan) -> dict[str, object]:
    """As `docker run -dit` creates a container: its shell waits until a user attaches."""
    setup, confinement = plan.setup, plan.confinement
    environment: list[str] = []
    if not plan.devices:
        # Where NVIDIA's runtime is the default, the image's own environment could ask for all GPUs.
        environment.append(_NO_GPU)
    host = _build_host_config(setup) | _build_device_requests(plan)
    host |= _build_resources(plan.resources, setup.shm_bytes)
    body: dict[str, object] = {
        "Image": plan.image,
        "Labels": dict(plan.labels),
        "Tty": True,
        "OpenStdin": True,
    }
    if setup.command:
        body["Cmd"] = list(setup.command)
    user = setup.user
    if confinement is not None:
        host |= _build_confined_host(setup, confinement)
        user = confinement.user
        environment += [f"{key}={value}" for key, value in confinement.environment.items()]
        if confinement.workdir:
            body["WorkingDir"] = confinement.workdir
    if user:
        body["User"] = user
    if environment:
        body["Env"] = environment
    return body | {"HostConfig": host}


def _build_host_config(setup: Setup) -> dict[str, object]:
    host: dict[str, object] = {"Binds": list(setup.mounts)}
    if setup.network:
        host["NetworkMode"] = setup.network
    if setup.ipc:
        host["IpcMode"] = setup.ipc
    return host


def _build_confined_host(setup: Setup, confinement: Confinement) -> dict[str, object]:
    host: dict[str, object] = {
        "Binds": [],
        # As a mount, not a bind: Docker would make the folder of a bind that is missing.
        "Mounts": [
            {
                "Type": "bind",
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": mount.read_only,
            }
            for mount in confinement.mounts
        ],
        "GroupAdd": [str(gid) for gid in confinement.groups],
        "SecurityOpt": [_NO_NEW_PRIVILEGES],
        "Privileged": False,
        "IpcMode": setup.ipc or "private",
        "CgroupnsMode": "private",
    }
    if confinement.drops_capabilities:
        host["CapDrop"] = ["ALL"]
    return host


def _build_resources(limits: ResourceLimits, shm_bytes: int) -> dict[str, object]:
    host: dict[str, object] = {}
    if limits.cpus is not None:
        # Not NanoCpus: Docker refuses more processors there than the host has.
        host |= {"CpuPeriod": _CPU_PERIOD_US, "CpuQuota": round(limits.cpus * _CPU_PERIOD_US)}
    if limits.memory is not None:
        host["Memory"] = limits.memory
        if limits.memory_swap is not None:
            host["MemorySwap"] = limits.memory_swap
    if limits.pids is not None:
        host["PidsLimit"] = limits.pids
    if limits.slice:
        host["CgroupParent"] = limits.slice
    sizes = [size for size in (shm_bytes, limits.shm_bytes) if size]
    if sizes:
        host["ShmSize"] = min(sizes)
    return host


def _build_device_requests(plan: Plan) -> dict[str, object]:
    """The devices by their UUIDs, which are never renumbered; {} without devices."""
    if not plan.devices:
        return {}
    # By UUID: an index may be another device after a reboot or a change of the layout.
    request = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": list(plan.devices),
        "Capabilities": [["gpu"]],
        "Options": {},
    }
    return {"DeviceRequests": [request]}


class _ConfinedConfig(msgspec.Struct):
    user: str = msgspec.field(name="User", default="")
    env: list[str] | None = msgspec.field(name="Env", default=None)


class _ConfinedInspect(msgspec.Struct):
    host: dict[str, Any] = msgspec.field(name="HostConfig")
    config: _ConfinedConfig = msgspec.field(name="Config")


def find_excess(body: bytes, confinement: Confinement, *, default_runtime: str) -> tuple[str, ...]:
    """What an inspected container has beyond a confinement, as Docker calls it. Raises `Malformed`.

    Devices of its GPU request are its booking's affair, but their form is not.
    """
    answer = decode_answer(body, _ConfinedInspect, "inspect")
    host = {key: value for key, value in answer.host.items() if key not in _HARMLESS}
    excess = [] if confinement.user in {"", answer.config.user} else ["User"]
    requests = host.pop("DeviceRequests", None) or ()
    if not all(map(_is_gpu_request, requests)):
        excess.append("DeviceRequests")
    if not requests and _NO_GPU not in (answer.config.env or ()):
        excess.append("NVIDIA_VISIBLE_DEVICES")
    if not _are_allowed_mounts(host.pop("Mounts", None) or (), confinement):
        excess.append("Mounts")
    for key, is_right in {
        "CapDrop": (lambda value: value == ["ALL"])
        if confinement.drops_capabilities
        else (lambda _: True),
        "SecurityOpt": lambda value: value == [_NO_NEW_PRIVILEGES],
        "MaskedPaths": lambda value: set(value or ()) >= _MASKED,
        "ReadonlyPaths": lambda value: set(value or ()) >= _READ_ONLY,
        "NetworkMode": lambda value: bool(_NETWORK.fullmatch(str(value))),
        "IpcMode": lambda value: value in {"private", "none"},
        "CgroupnsMode": lambda value: value == "private",
        "Runtime": lambda value: value in {"", None, "runc", default_runtime},
        "RestartPolicy": lambda value: (value or {}).get("Name") in {"", "no", None},
        "GroupAdd": lambda value: {*(value or ())} <= {str(gid) for gid in confinement.groups},
    }.items():
        if not is_right(host.pop(key, None)):
            excess.append(key)
    # Decision 194: a key that is not known here may give anything.
    return (*excess, *(key for key, value in host.items() if value))


def _is_gpu_request(request: Mapping[str, Any]) -> bool:
    """Whether it asks for devices by name, and for nothing else."""
    return (
        request.get("Driver") in {"", "nvidia"}
        and not request.get("Count")
        and bool(request.get("DeviceIDs"))
        and request.get("Capabilities") == [["gpu"]]
        and not request.get("Options")
    )


def _are_allowed_mounts(mounts: Sequence[Mapping[str, Any]], confinement: Confinement) -> bool:
    allowed = {(mount.source, mount.target): mount.read_only for mount in confinement.mounts}
    for mount in mounts:
        key = (mount.get("Source"), mount.get("Target"))
        if mount.get("Type") != "bind" or key not in allowed:
            return False
        # Read-only without need is less than allowed, and no excess.
        if allowed[key] and not mount.get("ReadOnly"):
            return False
        # BindOptions could spread mounts from the container to the host.
        if set(mount) - {"Type", "Source", "Target", "ReadOnly"}:
            return False
    return True
