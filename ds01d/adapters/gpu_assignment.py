"""What GPUs a container asks for, from Docker's inspect answer: every form becomes one `Request`.

Pure: it reads what it is given, asks nobody and raises nothing. It does not resolve: an index stays
an index, because only the time of the container's start knows which device that was. A name it does
not understand (NVIDIA takes abbreviated UUIDs and PCI addresses too) makes the whole request
unknown: it must look neither like no request nor like a device that is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ds01d.model.containers import NO_REQUEST, Ask, DeviceRef, RefKind, Request
from ds01d.model.facts import Source, Unknown

VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"

# What dockerd's nvidia driver answers to; a request names one of them to reach it.
_CAPABILITIES = frozenset(
    ("gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display")
)
_NOTHING = frozenset(("", "none", "void"))
_MOST = 1024  # More GPUs than a host has. Whoever counts them up need not count a user's 10**18.
_QUOTES = " \t\"'"

_CDI = re.compile(r"(?:[\w-]+\.)*nvidia\.com/gpu=(.*)", re.DOTALL)
_NODE = re.compile(r"/dev/nvidia([0-9]+)")
_HEX = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_FORMS = (
    (RefKind.INDEX, re.compile(r"(?:gpu)?([0-9]+)")),
    (RefKind.MIG_INDEX, re.compile(r"(?:mig)?([0-9]+:[0-9]+)")),
    (RefKind.UUID, re.compile(rf"((?:GPU|MIG)-{_HEX})", re.IGNORECASE)),
    (RefKind.LEGACY_MIG, re.compile(rf"(MIG-GPU-{_HEX}/[0-9]+/[0-9]+)", re.IGNORECASE)),
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


class HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """The part of `HostConfig` that can give a container a GPU."""

    runtime: str | None = None
    privileged: bool | None = None
    device_requests: list[DeviceRequest] | None = None
    devices: list[DeviceNode] | None = None


def read_request(
    host: HostConfig, env: Sequence[str], *, default_runtime: str = ""
) -> Request | Unknown:
    """The container's request: its device requests, else its environment, and its device nodes.

    `all` beats a count and a count beats names: less is known of what it really has.
    `default_runtime` is the engine's, for containers that name none.
    """
    names, count, asked = [*_cdi_names(host)], 0, False
    runtime = host.runtime or default_runtime
    hooked = runtime == "nvidia" or runtime.startswith("nvidia-")
    for request in filter(_is_for_nvidia, host.device_requests or ()):
        names += request.device_ids or ()
        names += ["all"] if (request.count or 0) < 0 else []
        count = max(count, request.count or 0)
        asked = asked or bool(request.device_ids or request.count)
        # With neither (`--gpus 0`) a request only brings NVIDIA's hook: the environment decides.
        hooked = True
    if hooked and not asked and not names:
        names.append(_visible_devices(env))
    devices = [device for name in names for device in _devices(name)]
    if "all" in devices:
        return Request(ask=Ask.ALL)
    if count:
        return Request(ask=Ask.COUNT, count=min(count, _MOST))
    return _named([*map(_ref, devices), *_nodes(host.devices or ())])


def _is_for_nvidia(request: DeviceRequest) -> bool:
    wanted = {capability for all_of in request.capabilities or () for capability in all_of or ()}
    return request.driver == "nvidia" or (
        not request.driver and not wanted.isdisjoint(_CAPABILITIES)
    )


def _cdi_names(host: HostConfig) -> Iterator[str]:
    for request in host.device_requests or ():
        if request.driver == "cdi":
            yield from (name for name in request.device_ids or () if _CDI.fullmatch(_bare(name)))


def _devices(text: str) -> Iterator[str]:
    """The devices in a string that may hold several, in quotes and with prefixes."""
    for name in map(_bare, text.split(",")):
        cdi = _CDI.fullmatch(name)
        device = cdi.group(1) if cdi else name
        if device not in _NOTHING:
            yield device


def _bare(text: str) -> str:
    return text.strip(_QUOTES).removeprefix("device=").strip(_QUOTES)


def _visible_devices(env: Sequence[str]) -> str:
    pairs = (item.partition("=") for item in env)
    values = [value for name, _, value in pairs if name == VISIBLE_DEVICES]
    return values[-1] if values else ""


def _nodes(nodes: Sequence[DeviceNode]) -> Iterator[DeviceRef]:
    for node in nodes:
        if match := _NODE.fullmatch(node.path_on_host or ""):
            yield DeviceRef(kind=RefKind.MINOR, text=match.group(1))


def _ref(device: str) -> DeviceRef | Unknown:
    for kind, form in _FORMS:
        if match := form.fullmatch(device):
            return DeviceRef(kind=kind, text=_as_nvml_writes(match.group(1)))
    reason = f"it asks for a GPU in a form that is not understood: {device[:80]!a}"
    return Unknown(source=Source.DOCKER, reason=reason)


def _as_nvml_writes(text: str) -> str:
    return text.lower().replace("gpu-", "GPU-").replace("mig-", "MIG-")


def _named(refs: Iterable[DeviceRef | Unknown]) -> Request | Unknown:
    devices = []
    for ref in dict.fromkeys(refs):
        if isinstance(ref, Unknown):
            return ref
        devices.append(ref)
    return Request(ask=Ask.NAMED, devices=tuple(devices)) if devices else NO_REQUEST
