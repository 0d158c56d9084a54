"""`ds01ctl doctor`: checks whether this host can run ds01d, with a fix for each problem."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from ds01d.adapters.host.access_report import AccessReport
from ds01d.cli.base.command import CONSISTENT, ERROR, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.doctor import device_checks
from ds01d.cli.doctor.container_checks import check_containers
from ds01d.cli.doctor.device_checks import check_devices
from ds01d.cli.doctor.host_checks import check_host
from ds01d.cli.doctor.source_checks import Check, Health, check_sources, fail, ok, warn
from ds01d.cli.doctor.web_checks import check_web
from ds01d.cli.output.blocks import Sentence, Table, Tone, Toned
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.config import Config
from ds01d.config_checks import describe_risks
from ds01d.config_file import DEFAULT_PATH, find_named_file
from ds01d.errors import ConfigError, Refused
from ds01d.model.primitives import Wall
from ds01d.text import format_count

_TONES = {Health.OK: Tone.GOOD, Health.WARN: Tone.WARN, Health.FAIL: Tone.BAD}


@click.command()
@click.option(
    "--publish-devices",
    is_flag=True,
    help="Only try, as root, whether containers can open their GPUs, and leave the result for"
    " ds01d (ds01d-devices.timer does).",
)
@json_option
@config_option
@click.pass_obj
def doctor(invocation: Invocation, *, publish_devices: bool, as_json: bool) -> int:
    """Check whether this host can run ds01d, with a fix for each problem. Change nothing.

    Checks with the permissions of the caller. Exit code: 0, or 1 if a check fails.
    """
    if publish_devices:
        return _publish_devices(invocation)
    now = Wall(time.time())
    # All of them before the first line: the exit code and the summary need them.
    checks = tuple(_run_checks(invocation, now))
    failed = any(check.health is Health.FAIL for check in checks)
    if as_json:
        show_json(
            "doctor",
            {
                "ok": not failed,
                "checks": [
                    {
                        "name": check.name,
                        "health": check.health.value,
                        # A key of the first version, which scripts read.
                        "told": check.detail,
                        "fix": check.fix,
                    }
                    for check in checks
                ],
            },
        )
    else:
        rows = [
            (Toned(check.health, _TONES[check.health]), check.name, check.detail)
            for check in checks
        ]
        fixes = [[f"fix: {check.fix}"] if check.fix else [] for check in checks]
        counts = Counter(check.health for check in checks)
        summary = ", ".join(f"{counts[health]} {health}" for health in Health if counts[health])
        table = Table(("status", "check", "detail"), rows, fixes)
        show_blocks(
            [table, Sentence(""), Sentence(summary, Tone.BAD if failed else Tone.GOOD)], now
        )
    return ERROR if failed else CONSISTENT


def _publish_devices(invocation: Invocation) -> int:
    if os.geteuid() != 0:
        raise Refused("only root can try the devices of containers")
    config = invocation.config()
    with invocation.environment.open_world(config) as world:
        count = device_checks.publish_devices(world, config, AccessReport())
    click.echo(f"{format_count(count, 'container')} tried")
    return CONSISTENT


def _run_checks(invocation: Invocation, now: Wall) -> Iterator[Check]:
    try:
        config = invocation.config()
    except ConfigError as error:
        for problem in str(error).splitlines():
            yield fail("configuration", problem, "correct it, then run ds01d --check")
        return
    yield from _check_configuration(config, invocation.config_file)
    environment = invocation.environment
    with environment.open_world(config) as world:
        yield from check_sources(world, config, lambda: environment.engine_version(config))
        yield from check_devices(world, config)
    yield from check_containers(config)
    yield from check_host(config, now)
    yield from check_web(config)
    if config.fleet.etcd:
        from ds01d.cli.doctor.fleet_store_checks import (  # noqa: PLC0415 - only with a store
            check_fleet_store,
        )

        yield from check_fleet_store(config)


def _check_configuration(config: Config, file: Path | None) -> Iterator[Check]:
    source = find_named_file(file, os.environ) or DEFAULT_PATH
    origin = str(source) if source.exists() else f"the defaults ({source} does not exist)"
    yield ok("configuration", f"{origin}: valid; mode {config.daemon.mode}")
    for risk in describe_risks(config):
        yield warn("configuration", risk, "see docs/configuration.md")
