"""`ds01ctl cuda`: the CUDA or ROCm version that containers of this host can use."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TextIO

import click

from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.output.blocks import Block, Document, Facts
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.config import Config
from ds01d.decide.cuda import TITLES, detect_support, format_version, select_gpu_packages
from ds01d.errors import Ds01Error
from ds01d.model.cuda import CudaSupport, Driver, Package
from ds01d.model.primitives import Unknown, Wall
from ds01d.text import format_count

_MOST_SHOWN = 8


@click.command()
@click.option(
    "--packages",
    type=click.File(encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="Ask about another host: its packages as dpkg-query -W prints them; - for stdin.",
)
@json_option
@config_option
@click.pass_obj
def cuda(invocation: Invocation, *, packages: TextIO | None, as_json: bool) -> int:
    """Show which CUDA or ROCm version containers of this host can use, with the evidence.

    The driver, asked through NVML, comes first; then the installed packages. Exit code: 0, or 1 if
    neither determines a version.
    """
    support = (
        detect_from_list(packages) if packages is not None else detect_on_host(invocation.config())
    )
    if as_json:
        show_json(cuda_document(support))
    else:
        show_blocks(_cuda_blocks(support), Wall(time.time()))
    return CONSISTENT


def detect_on_host(config: Config) -> CudaSupport:
    """What containers of this host can use. Raises `Ds01Error` with what was looked at."""
    from ds01d.adapters.host.dpkg import NoPackages, list_installed  # noqa: PLC0415 - only here

    # The driver knows what it runs; packages only tell what somebody installed.
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
    from ds01d.adapters.host.dpkg import parse_packages  # noqa: PLC0415 - only here

    origin = str(getattr(file, "name", "stdin"))
    packages = parse_packages(file.read(), origin=origin)
    count = f"{format_count(len(packages), 'package')} in {origin}"
    return _require_support(None, packages, [_describe_packages(packages, count)])


def cuda_document(support: CudaSupport) -> Document:
    """The object that `cuda --json` prints."""
    return {
        "stack": support.stack.value,
        "version": format_version(support.version),
        "architecture": support.architecture,
        "evidence": [item.description for item in support.evidence],
    }


def _ask_driver(config: Config) -> tuple[Driver | None, list[str]]:
    """What the driver supports, or why that is unknown."""
    from ds01d.adapters.nvml.cuda_version import ask_driver  # noqa: PLC0415 - only here

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
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return f"{count}, of which {', '.join(names[:_MOST_SHOWN])}{more} determine no version"


def _cuda_blocks(support: CudaSupport) -> Iterator[Block]:
    evidence = [item.description for item in support.evidence]
    if len(evidence) > _MOST_SHOWN:
        evidence = [*evidence[:_MOST_SHOWN], f"and {len(evidence) - _MOST_SHOWN} more"]
    yield Facts(
        (
            ("stack", TITLES[support.stack]),
            ("version", format_version(support.version)),
            ("architecture", support.architecture),
            ("evidence", evidence),
        )
    )
