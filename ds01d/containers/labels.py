"""The labels of a new container, in the form that the server's other tools expect. Pure.

Labels are claims for people and tools; ds01d decides by device requests and processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from ds01d.decide.short_names import split_name
from ds01d.model.allocation import Allocated
from ds01d.model.creation import Person, Setup
from ds01d.model.primitives import ContainerName, Wall
from ds01d.model.reservation import BOOKING_LABEL

CREATION = "ds01.creation"
INTERFACE = "container-create"

_MLC_VERSION = "4"
_MOUNTS = {"/workspace": "WORK_MOUNT", "/data": "DATA_MOUNT", "/models": "MODELS_MOUNT"}


def build_labels(
    *,
    name: ContainerName,
    owner: Person,
    framework: str,
    architecture: str,
    custom_image: str,
    setup: Setup,
    booked: Sequence[Allocated],
    at: Wall,
    creation: str,
) -> dict[str, str]:
    """Every label. `creation` is the random token by which a creation recognises its container."""
    created_at = datetime.fromtimestamp(at, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    devices = [device_of(booking) for booking in booked]
    return {
        "aime.mlc": owner.name,
        "aime.mlc.NAME": split_name(name)[0],
        "aime.mlc.USER": owner.name,
        "aime.mlc.FRAMEWORK": framework,
        "aime.mlc.ARCH": architecture,
        "aime.mlc.GPUS": f"device={','.join(devices)}" if devices else "",
        "aime.mlc.MLC_VERSION": _MLC_VERSION,
        "aime.mlc.DS01_MANAGED": "true",
        "aime.mlc.CUSTOM_IMAGE": custom_image,
        **_mount_labels(setup),
        "ds01.managed": "true",
        "ds01.user": owner.name,
        "ds01.created_at": created_at,
        "ds01.interface": INTERFACE,
        CREATION: creation,
        **_gpu_labels(booked, created_at),
    }


def device_of(booked: Allocated) -> str:
    """The device in a GPU request: its UUID, if known."""
    return booked.device or booked.docker_id


def _mount_labels(setup: Setup) -> Mapping[str, str]:
    parts = [mount.split(":") for mount in setup.mounts]
    return {f"aime.mlc.{_MOUNTS[target]}": host for host, target, *_ in parts if target in _MOUNTS}


def _gpu_labels(booked: Sequence[Allocated], allocated_at: str) -> Mapping[str, str]:
    if not booked:
        return {}
    slots = ",".join(booking.slot for booking in booked)
    devices = ",".join(device_of(booking) for booking in booked)
    booking = booked[0].id
    return {
        **({} if booking is None else {BOOKING_LABEL: booking}),
        "ds01.gpu.allocated": slots,
        "ds01.gpu.allocated_at": allocated_at,
        "ds01.gpu.uuid": devices,
        "ds01.gpu.priority": str(booked[0].priority),
        "ds01.gpu.slots": slots,
        "ds01.gpu.uuids": devices,
    }
