"""What GPUs a container asks for, from Docker's inspect answer: every form becomes one `Request`.

Pure: it reads what it is given, asks nobody and raises nothing. It does not resolve: an index stays
an index, because only the time of the container's start knows which device that was. A part that is
not understood, or whose effect depends on the host (`gpu_claims`), makes the request unclear: it
must look neither like no request nor like a device that is gone.

NVIDIA's library compares "all" and UUIDs without regard to case, and takes the beginning of a UUID
for the UUID (libnvidia-container, `select_devices`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Sequence

import msgspec

from ds01d.adapters.docker.gpu_claims import (
    NOTHING,
    Claim,
    Mount,
    annotated_devices,
    cgroup_rules,
    mounted_devices,
    swarm_resources,
)
from ds01d.model.containers import NO_REQUEST, DeviceRef, GpuRequestKind, RefKind, Request

VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"

# What dockerd's nvidia driver answers to; a request names one of them to reach it.
_CAPABILITIES = frozenset(
    ("gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display")
)
_MOST = 1024  # More GPUs than a host has. Whoever counts them up need not count a user's 10**18.
_MOST_NAMES = 512  # A user may name as many devices as an answer of Docker's can hold.
_MOST_TOLD = 32
_QUOTES = " \t\"'"

_CDI = re.compile(r"(?:[\w-]+\.)*nvidia\.com/gpu=(.*)", re.DOTALL)
# Kinds of NVIDIA's CDI devices that bring no GPU: GPUDirect Storage, InfiniBand and the like.
_CDI_WITHOUT_GPU = re.compile(
    r"(?:[\w-]+\.)*nvidia\.com/(?:gds|gdrcopy|mofed|imex-channel|nvswitch)=.*", re.DOTALL
)
_CDI_OF_NVIDIA = re.compile(r"(?:[\w-]+\.)*nvidia\.com/.*", re.DOTALL)
# What the CDI specification calls a qualified name, of any vendor: vendor/class=device.
_CDI_OF_ANYBODY = re.compile(r"[A-Za-z][\w.-]*/[A-Za-z][\w.-]*=.+", re.DOTALL)

# The names under which dockerd has its driver for NVIDIA's GPUs, and from 29 on each of the two
# ways that this one may take (moby, daemon/devices_nvidia_linux.go).
_NVIDIA_DRIVERS = frozenset(("nvidia", "nvidia.cdi", "nvidia.runtime-hook"))

# The runtimes that pay no regard to NVIDIA_VISIBLE_DEVICES. Others (gVisor's runsc, a wrapper of
# NVIDIA's under a name of its own) may.
_PLAIN_RUNTIMES = frozenset(("", "runc", "crun", "youki"))
_PLAIN_SHIM = re.compile(r"io\.containerd\.(?:runc|runtime)\.v[0-9]+(?:\.linux)?")

_NODE = re.compile(r"/dev/(?:nvidia|char/195:)([0-9]{1,3})")
# Nodes that bring no GPU: control, unified memory, switches, storage; caps 1 and 2 only let MIG be
# configured and watched (/proc/driver/nvidia/capabilities/mig).
_NODE_WITHOUT_GPU = re.compile(
    r"/dev/(?:nvidiactl|nvidia-(?:uvm|uvm-tools|modeset|nvlink|nvswitch.*|fs[0-9]*)"
    r"|nvidia-caps-imex-channels(?:/.*)?|nvidia-caps/nvidia-cap[12]|char/195:25[45])"
)
_NODE_OF_GPU = re.compile(r"/dev(?:/nvidia.*|/dri(?:/.*)?|/char/195:.*)?")
_HEX = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_FORMS = (
    # No number has more digits: Python refuses to understand one of 4,301.
    (RefKind.INDEX, re.compile(r"(?:gpu)?([0-9]{1,9})")),
    # Slot ids ("1.0") are how the legacy allocator's users write a MIG device.
    (RefKind.MIG_INDEX, re.compile(r"(?:mig)?([0-9]{1,9}[:.][0-9]{1,9})")),
    (RefKind.UUID, re.compile(rf"((?:GPU|MIG)-{_HEX})", re.IGNORECASE)),
    (RefKind.LEGACY_MIG, re.compile(rf"(MIG-GPU-{_HEX}/[0-9]{{1,9}}/[0-9]{{1,9}})", re.IGNORECASE)),
    (RefKind.SHORT_UUID, re.compile(r"((?:GPU|MIG)-[0-9a-f][0-9a-f-]{0,34})", re.IGNORECASE)),
    (
        RefKind.PCI,
        re.compile(
            r"((?:(?:[0-9a-f]{4}){1,2}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
            r"|(?:[0-9a-f]{4}){1,2}:[0-9a-f]{2}:[0-9a-f]{2})",
            re.IGNORECASE,
        ),
    ),
)


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


def is_nvidia_runtime(name: str, known: Collection[str] = ()) -> bool:
    """Whether a runtime, by its name or the path of its program, is NVIDIA's.

    `known`: names under which the engine runs it (from its configuration).
    """
    program = posixpath.basename(name)
    return name in known or program == "nvidia" or program.startswith("nvidia-")


def read_request(
    host: HostConfig,
    env: Sequence[str],
    *,
    default_runtime: str = "",
    nvidia_runtimes: Collection[str] = (),
    mounts: Sequence[Mount] = (),
) -> Request:
    """The container's request: its device requests, else its environment, and its device nodes.

    `all` beats everything, what is not understood beats a count, and a count beats names: less is
    known of what it really has. Names beside a count (Compose can ask twice) are kept: they are
    used as well. `default_runtime` is the engine's, for containers that name none;
    `nvidia_runtimes` its names for NVIDIA's.
    """
    names, count, asked = [*_cdi_names(host)], 0, False
    runtime = host.runtime or default_runtime
    hooked = is_nvidia_runtime(runtime, nvidia_runtimes)
    for request in filter(_is_for_nvidia, host.device_requests or ()):
        names += request.device_ids or ()
        names += ["all"] if (request.count or 0) < 0 else []
        count = max(count, request.count or 0)
        asked = asked or bool(request.device_ids or request.count)
        # With neither (`--gpus 0`) a request only brings NVIDIA's hook: the environment decides.
        hooked = True
    claims = [
        *_odd_requests(host.device_requests or ()),
        *swarm_resources(env),
        *mounted_devices(mounts),
        *annotated_devices(host.annotations or {}),
        *cgroup_rules(host.device_cgroup_rules or ()),
        *_odd_nodes(host.devices or ()),
    ]
    if not asked and not names:
        visible = _visible_devices(env)
        if hooked:
            names.append(visible)
        elif not _is_plain(runtime) and visible not in NOTHING:
            claims.append(Claim(f"{VISIBLE_DEVICES}={visible} under runtime {runtime}", (visible,)))
    devices = [device for name in names for device in _devices(name)]
    if any(device.lower() == "all" for device in devices):
        return Request(ask=GpuRequestKind.ALL)
    refs = [*map(_ref, devices), *_nodes(host.devices or ())]
    unclear = [text for text, ref in zip(devices, refs, strict=False) if ref is None]
    unclear += [claim.text for claim in claims]
    if unclear:
        refs += [_ref(text) for claim in claims for name in claim.names for text in _devices(name)]
    known = tuple(dict.fromkeys(ref for ref in refs if ref is not None))
    if len(known) > _MOST_NAMES:
        unclear.append(f"{len(known)} devices")
        known = known[:_MOST_NAMES]
    count = min(count, _MOST)
    if unclear:
        told = tuple(dict.fromkeys(map(_printable, unclear)))
        left = len(told) - _MOST_TOLD
        told = (*told[:_MOST_TOLD], f"{left} more") if left > 0 else told
        return Request(ask=GpuRequestKind.UNCLEAR, devices=known, count=count, unclear=told)
    if count:
        first = {DeviceRef(kind=RefKind.INDEX, text=str(number)) for number in range(count)}
        more = tuple(ref for ref in known if ref not in first)
        return Request(ask=GpuRequestKind.COUNT, devices=more, count=count)
    return Request(ask=GpuRequestKind.NAMED, devices=known) if known else NO_REQUEST


def _is_for_nvidia(request: DeviceRequest) -> bool:
    wanted = {capability for all_of in request.capabilities or () for capability in all_of or ()}
    return request.driver in _NVIDIA_DRIVERS or (
        not request.driver and not wanted.isdisjoint(_CAPABILITIES)
    )


def _odd_requests(requests: Sequence[DeviceRequest]) -> Iterator[Claim]:
    """CDI devices of NVIDIA's that are of no kind we know; requests to a driver we do not know."""
    for request in requests:
        names = request.device_ids or ()
        if request.driver == "cdi":
            for name in map(_bare, names):
                if _CDI.fullmatch(name) or _CDI_WITHOUT_GPU.fullmatch(name):
                    continue
                if _CDI_OF_NVIDIA.fullmatch(name):
                    yield Claim(name)
        elif (
            request.driver
            and request.driver not in _NVIDIA_DRIVERS
            and "nvidia" in request.driver.lower()
        ):
            yield Claim(f"a device request to driver {request.driver}", tuple(names))


def _is_plain(runtime: str) -> bool:
    return runtime in _PLAIN_RUNTIMES or _PLAIN_SHIM.fullmatch(runtime) is not None


def _cdi_names(host: HostConfig) -> Iterator[str]:
    for request in host.device_requests or ():
        if request.driver == "cdi":
            yield from (name for name in request.device_ids or () if _CDI.fullmatch(_bare(name)))


def _devices(text: str) -> Iterator[str]:
    """The devices in a string that may hold several, in quotes and with prefixes.

    Qualified names of CDI stand beside plain ones: NVIDIA's runtime in its mode `cdi` and Docker
    from 29 on take both. Those of other vendors, and those that bring no GPU, are left out.
    """
    for name in map(_bare, text.split(",")):
        cdi = _CDI.fullmatch(name)
        device = cdi.group(1) if cdi else name
        if device not in NOTHING and (cdi or not _brings_no_gpu(name)):
            yield device


def _brings_no_gpu(cdi_name: str) -> bool:
    if _CDI_OF_NVIDIA.fullmatch(cdi_name):
        return _CDI_WITHOUT_GPU.fullmatch(cdi_name) is not None
    return _CDI_OF_ANYBODY.fullmatch(cdi_name) is not None


def _bare(text: str) -> str:
    return text.strip(_QUOTES).removeprefix("device=").strip(_QUOTES)


def _visible_devices(env: Sequence[str]) -> str:
    pairs = (item.partition("=") for item in env)
    values = [value for name, _, value in pairs if name == VISIBLE_DEVICES]
    return values[-1] if values else ""


def _nodes(nodes: Sequence[DeviceNode]) -> Iterator[DeviceRef]:
    for node in nodes:
        path = _normal(node.path_on_host)
        match = _NODE.fullmatch(path)
        if match and not _NODE_WITHOUT_GPU.fullmatch(path):
            yield DeviceRef(kind=RefKind.MINOR, text=str(int(match.group(1))))


def _odd_nodes(nodes: Sequence[DeviceNode]) -> Iterator[Claim]:
    """Nodes by which a GPU may be reached, and of which it is not known which GPU."""
    for node in nodes:
        for path in (_normal(node.path_on_host), _normal(node.path_in_container)):
            if _NODE_WITHOUT_GPU.fullmatch(path) or _NODE.fullmatch(path):
                break
            if _NODE_OF_GPU.fullmatch(path):
                yield Claim(f"device {node.path_on_host or path}")
                break


def _normal(path: str | None) -> str:
    """The path without `..`, `.` and double slashes, as Docker cleans it."""
    return "/" + posixpath.normpath(path).lstrip("/") if path else ""


def _ref(device: str) -> DeviceRef | None:
    """The device as it is named; None where that is in no form we know."""
    for kind, form in _FORMS:
        if match := form.fullmatch(device):
            text = match.group(1)
            if kind is RefKind.MIG_INDEX:
                text = text.replace(".", ":")
            return DeviceRef(kind=kind, text=_as_nvml_writes(text))
    return None


def _as_nvml_writes(text: str) -> str:
    return text.lower().replace("gpu-", "GPU-").replace("mig-", "MIG-")


def _printable(text: str) -> str:
    """For people: short, and nothing in it that could break a line."""
    return "".join(c if c.isprintable() else "?" for c in text[:120])
