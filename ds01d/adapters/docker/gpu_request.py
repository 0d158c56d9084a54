"""The GPUs that a container asks for, from its inspect answer: every form becomes one `Request`.

Pure. Nothing is resolved to a device: an index stays an index, because which device it means is
known only for the time of the container's start. A part that is not understood, or whose effect
depends on the host (`gpu_claims`), makes the request unclear (decision 79): it must look neither
like no request nor like a device that is gone.

NVIDIA's library compares "all" and UUIDs without regard to case, and takes the beginning of a UUID
for the UUID (libnvidia-container, `select_devices`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Sequence

import msgspec

from ds01d.adapters.docker.device_names import (
    find_unclear_node,
    find_unknown_cdi,
    is_cdi_gpu,
    parse_device,
    parse_node,
    split_devices,
)
from ds01d.adapters.docker.gpu_claims import (
    NO_DEVICE,
    Claim,
    MountPoint,
    find_annotated_devices,
    find_cgroup_rules,
    find_mounted_devices,
    find_swarm_resources,
)
from ds01d.model.containers import NO_REQUEST, DeviceRef, GpuRequestKind, RefKind, Request
from ds01d.text import make_printable

VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"

# What dockerd's nvidia driver answers to; a request names one of them to reach it.
_CAPABILITIES = frozenset(
    ("gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display")
)
# A user may ask for 10**18 GPUs, or name as many as fit into an answer of Docker's. No host has as
# many, and code that goes through them must not take long.
_MAX_COUNT = 1024
_MAX_NAMES = 512
_MAX_UNCLEAR = 32

# The names under which dockerd has its driver for NVIDIA's GPUs, and from 29 on each of the two
# ways that this one may take (moby, daemon/devices_nvidia_linux.go).
_NVIDIA_DRIVERS = frozenset(("nvidia", "nvidia.cdi", "nvidia.runtime-hook"))

# The runtimes that ignore NVIDIA_VISIBLE_DEVICES. Others (gVisor's runsc, a wrapper of NVIDIA's
# under another name) may read it.
_PLAIN_RUNTIMES = frozenset(("", "runc", "crun", "youki"))
_PLAIN_SHIM = re.compile(r"io\.containerd\.(?:runc|runtime)\.v[0-9]+(?:\.linux)?")


class DeviceRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """One entry of `HostConfig.DeviceRequests`: `--gpus …` or a CDI device."""

    driver: str | None = None
    count: int | None = None
    device_ids: list[str] | None = msgspec.field(name="DeviceIDs", default=None)
    capabilities: list[list[str] | None] | None = None


class DeviceNode(msgspec.Struct, frozen=True, rename="pascal"):
    """One entry of `HostConfig.Devices`: `--device /dev/…`."""

    path_on_host: str | None = None
    path_in_container: str | None = None


class HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """The part of `HostConfig` that can give a container a GPU."""

    runtime: str | None = None
    privileged: bool | None = None
    device_requests: list[DeviceRequest] | None = None
    devices: list[DeviceNode] | None = None
    device_cgroup_rules: list[str] | None = None
    annotations: dict[str, str] | None = None


def is_nvidia_runtime(name: str, configured: Collection[str] = ()) -> bool:
    """A runtime, by its name or the path of its program, is NVIDIA's.

    `configured`: the names under which the engine's configuration runs NVIDIA's.
    """
    program = posixpath.basename(name)
    return name in configured or program == "nvidia" or program.startswith("nvidia-")


def read_request(
    host: HostConfig,
    env: Sequence[str],
    *,
    default_runtime: str = "",
    nvidia_runtimes: Collection[str] = (),
    mounts: Sequence[MountPoint] = (),
) -> Request:
    """The container's request: its device requests, else its environment, and its device nodes.

    `default_runtime`: the engine's, for containers that name none; `nvidia_runtimes`: its names for
    NVIDIA's.
    """
    requests = host.device_requests or ()
    nvidia_requests = [request for request in requests if _is_for_nvidia(request)]
    names = [name for request in requests for name in _list_cdi_gpus(request)]
    for request in nvidia_requests:
        names += request.device_ids or ()
        names += ["all"] if (request.count or 0) < 0 else []
    claims = [
        *_find_unknown_requests(requests),
        *find_swarm_resources(env),
        *find_mounted_devices(mounts),
        *find_annotated_devices(host.annotations or {}),
        *find_cgroup_rules(host.device_cgroup_rules or ()),
        *_find_unclear_nodes(host.devices or ()),
    ]
    asks_devices = any(request.device_ids or request.count for request in nvidia_requests)
    if not asks_devices and not names:
        runtime, visible = host.runtime or default_runtime, _find_visible_devices(env)
        # `--gpus 0` only brings NVIDIA's hook, which then reads the environment.
        if nvidia_requests or is_nvidia_runtime(runtime, nvidia_runtimes):
            names.append(visible)
        elif not _is_plain_runtime(runtime) and visible not in NO_DEVICE:
            claims.append(Claim(f"{VISIBLE_DEVICES}={visible} under runtime {runtime}", (visible,)))
    count = max((request.count or 0 for request in nvidia_requests), default=0)
    nodes = [ref for node in host.devices or () if (ref := parse_node(node.path_on_host))]
    return _build_request(names, nodes, claims, max(count, 0))


def _build_request(
    names: Sequence[str], nodes: Sequence[DeviceRef], claims: Sequence[Claim], count: int
) -> Request:
    # `all` wins over everything, an unclear part over a count, and a count over names: the less is
    # known of what the container has, the stronger. Names beside a count (Compose can write both)
    # are kept, since they are used as well.
    devices = [device for name in names for device in split_devices(name)]
    if any(device.lower() == "all" for device in devices):
        return Request(ask=GpuRequestKind.ALL)
    parsed = [(device, parse_device(device)) for device in devices]
    unclear = [device for device, ref in parsed if ref is None]
    unclear += [claim.text for claim in claims]
    refs: list[DeviceRef | None] = [*(ref for _, ref in parsed), *nodes]
    if unclear:
        pieces = (split_devices(name) for claim in claims for name in claim.names)
        refs += (parse_device(device) for piece in pieces for device in piece)
    distinct = tuple(dict.fromkeys(ref for ref in refs if ref is not None))
    if len(distinct) > _MAX_NAMES:
        unclear.append(f"{len(distinct)} devices")
        distinct = distinct[:_MAX_NAMES]
    count = min(count, _MAX_COUNT)
    if unclear:
        shown = _shorten_unclear(unclear)
        return Request(ask=GpuRequestKind.UNCLEAR, devices=distinct, count=count, unclear=shown)
    if count:
        first = {DeviceRef(kind=RefKind.INDEX, text=str(number)) for number in range(count)}
        others = tuple(ref for ref in distinct if ref not in first)
        return Request(ask=GpuRequestKind.COUNT, devices=others, count=count)
    return Request(ask=GpuRequestKind.NAMED, devices=distinct) if distinct else NO_REQUEST


def _is_for_nvidia(request: DeviceRequest) -> bool:
    asked = {capability for all_of in request.capabilities or () for capability in all_of or ()}
    return request.driver in _NVIDIA_DRIVERS or (
        not request.driver and not asked.isdisjoint(_CAPABILITIES)
    )


def _list_cdi_gpus(request: DeviceRequest) -> Iterator[str]:
    if request.driver == "cdi":
        yield from filter(is_cdi_gpu, request.device_ids or ())


def _find_unknown_requests(requests: Sequence[DeviceRequest]) -> Iterator[Claim]:
    """CDI devices of NVIDIA's of a class that is not known; requests to an unknown driver."""
    for request in requests:
        names = request.device_ids or ()
        if request.driver == "cdi":
            yield from (Claim(text) for name in names if (text := find_unknown_cdi(name)))
        elif (
            request.driver
            and request.driver not in _NVIDIA_DRIVERS
            and "nvidia" in request.driver.lower()
        ):
            yield Claim(f"a device request to driver {request.driver}", tuple(names))


def _find_unclear_nodes(nodes: Sequence[DeviceNode]) -> Iterator[Claim]:
    for node in nodes:
        path = find_unclear_node(node.path_on_host, node.path_in_container)
        if path is not None:
            yield Claim(f"device {path}")


def _is_plain_runtime(runtime: str) -> bool:
    return runtime in _PLAIN_RUNTIMES or _PLAIN_SHIM.fullmatch(runtime) is not None


def _find_visible_devices(env: Sequence[str]) -> str:
    pairs = (item.partition("=") for item in env)
    values = [value for name, _, value in pairs if name == VISIBLE_DEVICES]
    return values[-1] if values else ""


def _shorten_unclear(parts: Sequence[str]) -> tuple[str, ...]:
    distinct = tuple(dict.fromkeys(make_printable(part[:120]) for part in parts))
    more = len(distinct) - _MAX_UNCLEAR
    return (*distinct[:_MAX_UNCLEAR], f"{more} more") if more > 0 else distinct
