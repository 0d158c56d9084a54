"""`ds01ctl cuda`: the CUDA or ROCm version that containers of this host can use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TextIO

import click

from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.output.blocks import Block, Facts
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.decide.cuda import TITLES, format_version
from ds01d.documents.values import Section
from ds01d.model.cuda import CudaSupport
from ds01d.model.primitives import Wall


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
    # Imported only here: NVML and the packages.
    from ds01d.adapters.host.cuda_support import detect_from_list, detect_on_host  # noqa: PLC0415

    support = (
        detect_from_list(packages) if packages is not None else detect_on_host(invocation.config())
    )
    if as_json:
        show_json("cuda", cuda_document(support))
    else:
        show_blocks(_cuda_blocks(support), Wall(time.time()))
    return CONSISTENT


def cuda_document(support: CudaSupport) -> Section:
    """The object that `cuda --json` prints."""
    return {
        "stack": support.stack.value,
        "version": format_version(support.version),
        "architecture": support.architecture,
        "evidence": [item.description for item in support.evidence],
    }


def _cuda_blocks(support: CudaSupport) -> Iterator[Block]:
    from ds01d.adapters.host.cuda_support import MAX_SHOWN  # noqa: PLC0415 - loaded already

    evidence = [item.description for item in support.evidence]
    if len(evidence) > MAX_SHOWN:
        evidence = [*evidence[:MAX_SHOWN], f"and {len(evidence) - MAX_SHOWN} more"]
    yield Facts(
        (
            ("stack", TITLES[support.stack]),
            ("version", format_version(support.version)),
            ("architecture", support.architecture),
            ("evidence", evidence),
        )
    )
