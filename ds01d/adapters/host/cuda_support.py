"""Which CUDA or ROCm version containers of this host can use: by its driver, or its packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from ds01d.adapters.host.dpkg import NoPackages, list_installed, parse_packages
from ds01d.adapters.nvml.cuda_version import ask_driver
from ds01d.config import Config
from ds01d.decide.cuda import detect_support, select_gpu_packages
from ds01d.errors import Ds01Error
from ds01d.model.cuda import CudaSupport, Driver, Package
from ds01d.model.primitives import Unknown
from ds01d.text import format_count

MAX_SHOWN = 8


def detect_on_host(config: Config) -> CudaSupport:
    """What containers of this host can use. Raises `Ds01Error` with what was looked at."""
    # The driver knows what it runs; packages only show what somebody installed.
    driver, sources = _ask_driver(config)
    packages = list_installed()
    if isinstance(packages, NoPackages):
        sources.append(packages.reason)
        packages = ()
    else:
        sources.append(
            _describe_packages(packages, format_count(len(packages), "installed package"))
        )
    return _require_support(driver, packages, sources)


def detect_from_list(file: TextIO) -> CudaSupport:
    """What containers of the host with these packages can use. Raises `Ds01Error`."""
    origin = str(getattr(file, "name", "stdin"))
    packages = parse_packages(file.read(), origin=origin)
    count = f"{format_count(len(packages), 'package')} in {origin}"
    return _require_support(None, packages, [_describe_packages(packages, count)])


def _ask_driver(config: Config) -> tuple[Driver | None, list[str]]:
    """What the driver supports, or why that is unknown."""
    if config.gpu.source == "none":
        return None, ['NVML is not used (gpu.source = "none")']
    answer = ask_driver(timeout_s=config.gpu.timeout_s)
    return (None, [answer.reason]) if isinstance(answer, Unknown) else (answer, [])


def _require_support(
    driver: Driver | None, packages: Sequence[Package], sources: Sequence[str]
) -> CudaSupport:
    support = detect_support(driver, packages)
    if support is None:
        raise Ds01Error(f"cannot determine a CUDA or ROCm version from: {'; '.join(sources)}")
    return support


def _describe_packages(packages: Sequence[Package], count: str) -> str:
    """How many packages, and which of them belong to CUDA or ROCm."""
    names = [f"{package.name} {package.version}" for package in select_gpu_packages(packages)]
    if not names:
        return f"{count}, none of CUDA or ROCm"
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return f"{count}, of which {', '.join(names[:MAX_SHOWN])}{more} determine no version"
