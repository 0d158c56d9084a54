"""Names of GPUs as requests write them: indices, UUIDs, PCI addresses, CDI names, device nodes.

Pure. A name in no known form is None, never no device.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ds01d.adapters.docker.gpu_claims import NO_DEVICE
from ds01d.model.containers import DeviceRef, RefKind

_QUOTES = " \t\"'"

_CDI_GPU = re.compile(r"(?:[\w-]+\.)*nvidia\.com/gpu=(.*)", re.DOTALL)
# Kinds of NVIDIA's CDI devices that bring no GPU: GPUDirect Storage, InfiniBand and the like.
_CDI_WITHOUT_GPU = re.compile(
    r"(?:[\w-]+\.)*nvidia\.com/(?:gds|gdrcopy|mofed|imex-channel|nvswitch)=.*", re.DOTALL
)
_CDI_NVIDIA = re.compile(r"(?:[\w-]+\.)*nvidia\.com/.*", re.DOTALL)
# What the CDI specification calls a qualified name, of any vendor: vendor/class=device.
_CDI_QUALIFIED = re.compile(r"[A-Za-z][\w.-]*/[A-Za-z][\w.-]*=.+", re.DOTALL)

_NODE = re.compile(r"/dev/(?:nvidia|char/195:)([0-9]{1,3})")
# Nodes that bring no GPU: control, unified memory, switches, storage. caps 1 and 2 only let MIG be
# configured and monitored (/proc/driver/nvidia/capabilities/mig).
_NODE_WITHOUT_GPU = re.compile(
    r"/dev/(?:nvidiactl|nvidia-(?:uvm|uvm-tools|modeset|nvlink|nvswitch.*|fs[0-9]*)"
    r"|nvidia-caps-imex-channels(?:/.*)?|nvidia-caps/nvidia-cap[12]|char/195:25[45])"
)
_NODE_OF_GPU = re.compile(r"/dev(?:/nvidia.*|/dri(?:/.*)?|/char/195:.*)?")

_HEX = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_FORMS = (
    # At most nine digits: Python raises ValueError for a number of 4,301.
    (RefKind.INDEX, re.compile(r"(?:gpu)?([0-9]{1,9})")),
    # Users of the legacy allocator write a MIG device as a slot ID ("1.0").
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


def parse_device(name: str) -> DeviceRef | None:
    """The device that a name means; None if it is in no known form."""
    for kind, form in _FORMS:
        if match := form.fullmatch(name):
            text = match.group(1)
            if kind is RefKind.MIG_INDEX:
                text = text.replace(".", ":")
            return DeviceRef(kind=kind, text=_normalize_uuid(text))
    return None


def split_devices(text: str) -> Iterator[str]:
    """The names of devices in a comma-separated text, without quotes and prefixes.

    Names of CDI devices that are no GPUs are left out.
    """
    # NVIDIA's runtime in its mode `cdi` and Docker from 29 on take qualified names of CDI beside
    # plain ones.
    for name in map(_strip_name, text.split(",")):
        cdi = _CDI_GPU.fullmatch(name)
        device = cdi.group(1) if cdi else name
        if device not in NO_DEVICE and (cdi or not _is_other_cdi(name)):
            yield device


def is_cdi_gpu(name: str) -> bool:
    """The name of a GPU as NVIDIA's CDI specification has it: "nvidia.com/gpu=0"."""
    return _CDI_GPU.fullmatch(_strip_name(name)) is not None


def find_unknown_cdi(name: str) -> str | None:
    """A CDI name of NVIDIA's whose class is not known, without quotes; None for any other."""
    bare = _strip_name(name)
    if _CDI_GPU.fullmatch(bare) or _CDI_WITHOUT_GPU.fullmatch(bare):
        return None
    return bare if _CDI_NVIDIA.fullmatch(bare) else None


def parse_node(path: str | None) -> DeviceRef | None:
    """The GPU of a device node on the host; None if the node is not that of one GPU."""
    clean = _clean_path(path)
    match = _NODE.fullmatch(clean)
    if match is None or _NODE_WITHOUT_GPU.fullmatch(clean):
        return None
    return DeviceRef(kind=RefKind.MINOR, text=str(int(match.group(1))))


def find_unclear_node(on_host: str | None, in_container: str | None) -> str | None:
    """The path of a node by which a GPU may be reached without saying which; None if it is none."""
    for path in (_clean_path(on_host), _clean_path(in_container)):
        if _NODE_WITHOUT_GPU.fullmatch(path) or _NODE.fullmatch(path):
            return None
        if _NODE_OF_GPU.fullmatch(path):
            return on_host or path
    return None


def _is_other_cdi(name: str) -> bool:
    if _CDI_NVIDIA.fullmatch(name):
        return _CDI_WITHOUT_GPU.fullmatch(name) is not None
    return _CDI_QUALIFIED.fullmatch(name) is not None


def _strip_name(text: str) -> str:
    return text.strip(_QUOTES).removeprefix("device=").strip(_QUOTES)


def _clean_path(path: str | None) -> str:
    """The path without `..`, `.` and double slashes, as Docker cleans it."""
    return "/" + posixpath.normpath(path).lstrip("/") if path else ""


def _normalize_uuid(text: str) -> str:
    """A UUID as NVML writes it: hexadecimal digits in lower case."""
    return text.lower().replace("gpu-", "GPU-").replace("mig-", "MIG-")
