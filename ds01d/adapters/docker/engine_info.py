"""The answer of /info parsed: what the engine is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ds01d.adapters.docker.decoding import decode_answer, parse_time
from ds01d.adapters.docker.gpu_request import is_nvidia_runtime
from ds01d.model.primitives import Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The answer of /info.

    `id`: "" if it is missing. `image_store`: what keeps images where the storage driver does not,
    "" where it does. `time`: the engine's clock, None if it is missing. `nvidia_runtimes`: the
    names under which NVIDIA's runtime is configured. `remaps_users`: root in a container is another
    user outside. `cgroup_driver`: who makes its cgroups, "systemd" or "cgroupfs".
    """

    id: str
    root_dir: str
    default_runtime: str
    driver: str = ""
    image_store: str = ""
    time: Wall | None = None
    nvidia_runtimes: frozenset[str] = frozenset()
    remaps_users: bool = False
    cgroup_driver: str = ""


def read_info(body: bytes) -> EngineInfo:
    """The answer of /info. Raises `Malformed`."""
    info = decode_answer(body, _Info, "/info")
    nvidia_runtimes = (
        name
        for name, runtime in (info.runtimes or {}).items()
        if runtime is not None and is_nvidia_runtime(runtime.path or "")
    )
    return EngineInfo(
        id=info.id or "",
        root_dir=info.root_dir,
        default_runtime=info.default_runtime or "",
        driver=info.driver or "",
        image_store=_find_image_store(info.driver_status),
        time=parse_time(info.system_time),
        nvidia_runtimes=frozenset(nvidia_runtimes),
        remaps_users="name=userns" in (info.security_options or ()),
        cgroup_driver=info.cgroup_driver or "",
    )


def _find_image_store(driver_status: object) -> str:
    # With containerd's image store (Docker's default from 29 on) the driver is described by
    # [["driver-type", "io.containerd.snapshotter.v1"]]; Docker's own drivers have no such pair.
    for pair in driver_status if isinstance(driver_status, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and pair[0] == "driver-type":
            return str(pair[1])
    return ""


class _Runtime(msgspec.Struct):
    path: str | None = None


class _Info(msgspec.Struct):
    root_dir: str = msgspec.field(name="DockerRootDir")
    id: str | None = msgspec.field(name="ID", default=None)
    default_runtime: str | None = msgspec.field(name="DefaultRuntime", default=None)
    driver: str | None = msgspec.field(name="Driver", default=None)
    driver_status: object = msgspec.field(name="DriverStatus", default=None)
    security_options: list[str] | None = msgspec.field(name="SecurityOptions", default=None)
    cgroup_driver: str | None = msgspec.field(name="CgroupDriver", default=None)
    system_time: str | None = msgspec.field(name="SystemTime", default=None)
    runtimes: dict[str, _Runtime | None] | None = msgspec.field(name="Runtimes", default=None)
