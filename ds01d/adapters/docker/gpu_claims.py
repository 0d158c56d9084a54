"""Ways to GPUs whose effect an inspect answer does not show, because it depends on the host.

Pure. Each is a `Claim`, with the devices that it would bring if it has an effect. A container with
a claim may have GPUs, and it is not known which.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

NO_DEVICE = frozenset(("", "none", "void"))

# NVIDIA's runtime takes devices from here if `accept-nvidia-visible-devices-as-volume-mounts`
# is set, as Kubernetes' device plugin and Sysbox have it.
_MOUNT_ROOT = "/var/run/nvidia-container-devices/"
# Prefixes of annotations that it reads in CDI mode: its own default and the GPU operator's
# (`nvidia.cdi.k8s.io/`). They can be configured.
_ANNOTATION = re.compile(r"(?:[\w-]+\.)*cdi\.k8s\.io/.*", re.DOTALL)
_RULE = re.compile(r"[ac] +(?:195|\*):\S+ +\S*[rw]\S*")  # 195: the driver's character devices


class Claim(NamedTuple):
    """A way that may lead to GPUs: as the container has it, and the names of its devices."""

    text: str
    names: tuple[str, ...] = ()


class MountPoint(msgspec.Struct, frozen=True, rename="pascal"):
    """One entry of `Mounts`."""

    destination: str | None = None
    source: str | None = None
    type: str | None = None


def find_swarm_resources(env: Sequence[str]) -> Iterator[Claim]:
    """Docker Swarm's generic resources, as dockerd hands them to a task: DOCKER_RESOURCE_<KIND>.

    They win over NVIDIA_VISIBLE_DEVICES where `swarm-resource` is set for NVIDIA's runtime
    (nvidia-container-toolkit 36, 57, 1599).
    """
    for item in env:
        name, _, value = item.partition("=")
        if name.startswith("DOCKER_RESOURCE_") and "GPU" in name.upper() and value not in NO_DEVICE:
            yield Claim(item, (value,))


def find_mounted_devices(mounts: Iterable[MountPoint]) -> Iterator[Claim]:
    """Devices that are named by volume mounts."""
    for mount in mounts:
        path = posixpath.normpath(mount.destination or "")
        if path.startswith("/run/nvidia-container-devices/"):
            path = f"/var{path}"
        if path.startswith(_MOUNT_ROOT) and not path.startswith(f"{_MOUNT_ROOT}imex/"):
            name = path.removeprefix(_MOUNT_ROOT)
            cdi = re.fullmatch(r"cdi/([^/]+/[^/]+)/(.+)", name)
            name = f"{cdi.group(1)}={cdi.group(2)}" if cdi else name
            yield Claim(f"mount {mount.destination}", (name,))


def find_annotated_devices(annotations: Mapping[str, str]) -> Iterator[Claim]:
    """CDI devices that are named by annotations."""
    for key, value in annotations.items():
        if _ANNOTATION.fullmatch(key) and "nvidia.com/" in value:
            yield Claim(f"annotation {key}={value}", (value,))


def find_cgroup_rules(rules: Iterable[str]) -> Iterator[Claim]:
    """Rules that let a container make the GPUs' device nodes by itself."""
    for rule in rules:
        if _RULE.fullmatch(rule.strip()):
            yield Claim(f"device cgroup rule {rule}")
