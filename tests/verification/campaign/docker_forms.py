"""How containers request devices in the campaign with Docker as the books, and what they then have.

Each form says by itself which devices a container has; nothing of what decides is asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STRANGER = "games"
"""Whose label others put on their containers; she has none herself."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What a container is created with. `ends_by_stop`: it has nothing once it is stopped."""

    devices: tuple[str, ...]
    host: Mapping[str, Any] = field(default_factory=dict)
    env: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    ends_by_stop: bool = False


def _request(**fields: object) -> Json:
    known: Json = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]]}
    return {**known, **fields}


def _by_wrapper(user: str, *devices: str, label: str = "") -> Form:
    labels = {
        "ds01.managed": "true",
        "ds01.user": label or user,
        "ds01.container_type": "docker",
        "ds01.gpu_slot": ",".join(devices),
    }
    # AIME's images name all GPUs in their environment; a device request comes before it.
    env = ("NVIDIA_VISIBLE_DEVICES=all",)
    host = {
        "DeviceRequests": [_request(DeviceIDs=[*devices])],
        "Runtime": "nvidia",
        "CgroupParent": f"ds01-student-{user}.slice",
    }
    return Form(devices, host, env, labels)


def _by_environment(user: str, *devices: str) -> Form:
    names = ",".join(devices)
    labels = {"ds01.managed": "true", "ds01.user": user, "ds01.gpu.uuids": names}
    env = ("NVIDIA_VISIBLE_DEVICES=all", f"NVIDIA_VISIBLE_DEVICES={names}")
    return Form(devices, {"Runtime": "nvidia"}, env, labels)


def _by_cdi(user: str, *devices: str) -> Form:
    names = [f"nvidia.com/gpu={device}" for device in devices]
    request = _request(Driver="cdi", DeviceIDs=names, Capabilities=None)
    return Form(devices, {"DeviceRequests": [request]}, labels={"ds01.user": user})


def _by_requests(user: str, *devices: str) -> Form:
    requests = [_request(DeviceIDs=[device]) for device in devices]
    return Form(devices, {"DeviceRequests": requests}, labels={"aime.mlc.USER": user})


def _as_job(user: str, *devices: str) -> Form:
    form = _by_wrapper(user, *devices)
    labels = {**form.labels, "ds01.interface": "api", "ds01.container_type": "api"}
    return Form(devices, form.host, form.env, labels, ends_by_stop=True)


def _with_anothers_label(user: str, *devices: str) -> Form:
    return _by_wrapper(user, *devices, label=STRANGER)


def _with_anothers_label_alone(_: str, *devices: str) -> Form:
    return _by_environment(STRANGER, *devices)


_NAMED: Sequence[Callable[..., Form]] = (
    *(_by_wrapper, _by_environment, _by_cdi, _by_requests, _as_job),
    _with_anothers_label,
    _with_anothers_label_alone,
)


def choose_form(chance: random.Random, user: str, *devices: str) -> Form:
    """A form in which these devices are named."""
    return chance.choice(_NAMED)(user, *devices)


def _everything(user: str, _: str) -> Form:
    """A Compose project with `capabilities: [gpu]`, or a container without a GPU by mistake."""
    labels = {
        "com.docker.compose.project": "web",
        "com.docker.compose.project.working_dir": f"/home/{user}/web",
    }
    return Form((), {"DeviceRequests": [_request(Count=-1)]}, labels=labels)


def _everything_by_environment(user: str, _: str) -> Form:
    labels = {"ds01.managed": "true", "ds01.user": user, "ds01.gpus": "all"}
    return Form((), {"Runtime": "nvidia"}, ("NVIDIA_VISIBLE_DEVICES=all",), labels)


def _infrastructure(_: str, device: str) -> Form:
    labels = {"ds01.protected": "true", "ds01.monitoring": "true"}
    return Form((), {"DeviceRequests": [_request(DeviceIDs=[device])]}, labels=labels)


def _labels_alone(user: str, device: str) -> Form:
    labels = {"ds01.managed": "true", "ds01.user": user, "ds01.gpu.uuids": device}
    return Form((), labels=labels)


_EMPTY: Sequence[Callable[[str, str], Form]] = (
    *(_everything, _everything_by_environment, _infrastructure, _labels_alone),
)


def choose_empty_form(chance: random.Random, user: str, device: str) -> Form:
    """A form in which a container holds nothing, whatever it seems to ask for."""
    return chance.choice(_EMPTY)(user, device)
