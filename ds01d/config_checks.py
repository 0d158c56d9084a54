"""What a configuration of valid values still gets wrong, and what is allowed but risky."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ds01d import config_text, fleet_settings, notify_settings
from ds01d.config import (
    READING_S,
    Config,
    ExemptConfig,
    FleetConfig,
    NotifyConfig,
    WebConfig,
)


def find_impossible(config: Config) -> Iterator[tuple[str, str]]:
    """What is well formed and cannot work: (key, why, and what would be right)."""
    daemon, policy = config.daemon, config.policy
    if config.books.kind == "docker" and config.gpu.source == "none":
        yield "gpu.source", 'books.kind = "docker" takes the slots from NVML: write "nvml"'
    if config.books.kind == "docker" and config.service.path is None:
        yield "service.socket", 'books.kind = "docker" books over it alone: write a path'
    deadlines = {"docker.timeout": config.docker.timeout_s}
    if config.gpu.source == "nvml":
        deadlines["gpu.timeout"] = config.gpu.timeout_s
    waits = {"daemon.sweep_interval": daemon.sweep_interval_s}
    for key, wait in {**deadlines, **waits, "policy.pace_window": policy.pace_window_s}.items():
        # A timeout of zero would fail each call, and a sweep of zero would never sleep.
        if wait <= 0:
            yield key, "zero cannot work: write a duration above it"
    for key, deadline in deadlines.items():
        if daemon.sweep_interval_s < deadline:
            problem = f"{daemon.sweep_interval_s:g}s is shorter than {key}, {deadline:g}s"
            yield "daemon.sweep_interval", f"{problem}: lengthen this one or shorten that one"
    if daemon.sweep_jitter_s > daemon.sweep_interval_s:
        yield "daemon.sweep_jitter", "longer than daemon.sweep_interval: write a shorter one"
    if policy.absence_grace_s < policy.settle_s:
        problem = f"shorter than policy.settle: write {policy.settle_s:g}s or more"
        yield "policy.absence_grace", problem
    # Between sweeps that are further apart nobody knows what a container does.
    if policy.idle_after_s and daemon.sweep_interval_s > READING_S:
        problem = f"needs a daemon.sweep_interval of at most {READING_S / 60:g}m"
        yield "policy.idle_after", f'{problem}: shorten that one, or write "0s" (off)'
    yield from _find_bad_numbers(config)
    yield from _find_bad_patterns(config.exempt)
    yield from _find_bad_addresses(config)
    yield from _find_bad_targets(config.notify)
    yield from _find_bad_paths(config)
    yield from _find_bad_hosts(config.fleet)


def _find_bad_numbers(config: Config) -> Iterator[tuple[str, str]]:
    policy = config.policy
    if not 0 <= policy.pace_count <= 1_000_000:
        yield "policy.pace_count", "write a whole number from 0 to 1000000"
    if not 0 <= policy.pace_fraction <= 1:  # NaN included
        yield "policy.pace_fraction", "write a fraction from 0 to 1, like 0.25"
    if not 0 <= policy.idle_utilization < 100:
        yield "policy.idle_utilization", "write a whole number of percent from 0 to 99"
    if not 0 <= config.accounting.keep_days <= 36_600:
        yield "accounting.keep_days", "write a whole number of days from 0 (none is kept) to 36600"


def _find_bad_patterns(exempt: ExemptConfig) -> Iterator[tuple[str, str]]:
    for pattern in exempt.labels:
        if (problem := config_text.label_pattern_problem(pattern)) is not None:
            yield "exempt.labels", problem
    for key, patterns in (("images", exempt.images), ("names", exempt.names)):
        for problem in filter(None, map(config_text.name_pattern_problem, patterns)):
            yield f"exempt.{key}", problem


def _find_bad_addresses(config: Config) -> Iterator[tuple[str, str]]:
    try:
        config_text.engine_endpoint(config.docker.url)
    except ValueError as error:
        yield "docker.url", str(error)
    try:
        _ = config.metrics.address
    except ValueError as error:
        yield "metrics.listen", str(error)
    yield from _find_bad_web(config.web)


def _find_bad_web(web: WebConfig) -> Iterator[tuple[str, str]]:
    try:
        is_remote = _is_remote(web)
    except ValueError as error:
        yield "web.listen", str(error)
    else:
        # Decision 283: who reaches it sees everything, so it takes two keys to show it to others.
        if is_remote and not web.remote:
            problem = (
                f"{config_text.show_value(web.listen)} can be reached from other hosts:"
                ' write a loopback address, like "127.0.0.1:9465", or the path of a socket,'
                " or set web.remote = true as well"
            )
            yield "web.listen", problem
    for name in web.hosts:
        if (invalid := config_text.host_name_problem(name)) is not None:
            yield "web.hosts", invalid


def _find_bad_targets(notify: NotifyConfig) -> Iterator[tuple[str, str]]:
    parsers: dict[str, tuple[str, Callable[[str], object]]] = {
        "mail": (notify.mail, notify_settings.parse_mail),
        "mail_domain": (notify.mail_domain, notify_settings.parse_mail_domain),
        "webhook": (notify.webhook, notify_settings.parse_webhook),
        "quiet_hours": (notify.quiet_hours, notify_settings.parse_quiet_hours),
    }
    for key, (value, parse) in parsers.items():
        if problem := _find_problem(value, parse):
            yield f"notify.{key}", problem


def _find_problem(value: str, parse: Callable[[str], object]) -> str:
    """Why the value is refused; "" if it is not, or not set."""
    try:
        _ = parse(value) if value else None
    except ValueError as error:
        return str(error)
    return ""


def _find_bad_hosts(fleet: FleetConfig) -> Iterator[tuple[str, str]]:
    for problem in filter(None, map(fleet_settings.ssh_host_problem, fleet.hosts)):
        yield "fleet.hosts", problem
    if len(set(fleet.hosts)) != len(fleet.hosts):
        yield "fleet.hosts", "a host is listed twice: list each once"
    if problem := _find_problem(fleet.hosts_file, config_text.parse_path):
        yield "fleet.hosts_file", problem
    yield from fleet_settings.find_store_problems(
        fleet.etcd, name=fleet.name, certificates=fleet.certificates, user=fleet.user
    )


def _find_bad_paths(config: Config) -> Iterator[tuple[str, str]]:
    paths = {
        "books.metadata": config.books.metadata,
        "books.state": config.books.state,
        "books.limits": config.books.limits,
        "books.owners": config.books.owners,
        "logs.operations": config.logs.operations,
        "logs.allocations": config.logs.allocations,
        "daemon.state_dir": config.daemon.state_dir,
        "notify.state_dir": config.notify.state_dir,
        "containers.frameworks": config.containers.frameworks,
        "fleet.view_file": config.fleet.view_file,
    }
    optional = {
        "service.socket": config.service.socket,
        "logs.events": config.logs.events,
        "notify.alerts": config.notify.alerts,
        "notify.command": config.notify.command,
        "metrics.textfile": config.metrics.textfile,
        "web.listen": config.web.listen if config.web.listen.startswith("/") else "",
    }
    for key, text in optional.items():
        path = _parse_optional(text)
        if isinstance(path, Path):
            paths[key] = path
        elif path:
            yield key, path
    if len(os.fsencode(config.service.socket)) > config_text.MAX_SOCKET_BYTES:
        problem = f"longer than {config_text.MAX_SOCKET_BYTES} bytes: choose a shorter path"
        yield "service.socket", problem
    if config.metrics.textfile and not config.metrics.textfile.endswith(".prom"):
        yield "metrics.textfile", "node_exporter reads only what ends in .prom: call it so"
    # Two roles for one file: each writer would destroy the other's.
    keys: dict[Path, str] = {}
    for key, path in paths.items():
        if path in keys:
            yield key, f"the same path as {keys[path]}: each needs its own"
        elif config.books.metadata in path.parents:
            yield key, "lies in books.metadata, where every file is a record: choose another place"
        keys.setdefault(path, key)


def _parse_optional(text: str) -> Path | str:
    """The path; "" for none, or why the text is none."""
    try:
        return config_text.parse_path(text) if text else ""
    except ValueError as error:
        return str(error)


def describe_risks(config: Config) -> tuple[str, ...]:
    """What is allowed but risky, a sentence each, for the log at start."""
    policy, metrics = config.policy, config.metrics
    # Beyond that the pace no longer bounds what one wrong answer can release.
    is_fast = policy.pace_count > 20 or policy.pace_fraction > 0.5
    is_hasty = 0 < policy.idle_after_s < 600
    folder = os.path.dirname(metrics.textfile)  # noqa: PTH120 - isdir never raises
    homeless = metrics.textfile and not os.path.isdir(folder)  # noqa: PTH112
    is_always = config.books.whole_gpus == "always" and config.books.kind == "files"
    is_remote = config.docker.url.startswith(("tcp:", "http:"))
    is_exposed = config.notify.webhook_form != "json" and "://" in config.notify.webhook
    slow_start = "a container that is slow to start may lose the GPU booked for it"
    texts = {
        f"policy.creation_grace is under a minute: {slow_start}": policy.creation_grace_s < 60,
        "policy.absence_grace is under 30s: a container that is only being replaced may lose its"
        " booking": policy.absence_grace_s < 30,
        "policy.settle is under 1s: books half written may look like drift": policy.settle_s < 1,
        "policy.freeze is under 10s: GPUs half set up may look like a layout": policy.freeze_s < 10,
        "policy.pace_count or pace_fraction is high: one wrong answer may release most bookings"
        " before anybody can freeze": is_fast,
        "policy.idle_after is under 10m: a container that loads data is reported as idle": is_hasty,
        "docker.url is unprotected: whatever answers there decides about releases": is_remote,
        "books.whole_gpus is always: a legacy allocator keeps dropping such slots": is_always,
        "web.listen: everybody who reaches this address sees users, containers and operations,"
        " without a password and without TLS (docs/web.md)": _is_remote(config.web),
        "notify.webhook: such an address is a password, and every user may read this file: write"
        " the path of a file with the address": is_exposed,
        "fleet.etcd: http:// to other hosts: others on the way can read and change what is"
        " reserved (docs/fleet.md)": fleet_settings.is_unprotected(config.fleet.etcd),
        f"metrics.textfile: no directory {folder}, so nothing is written": bool(homeless),
    }
    return tuple(text for text, risky in texts.items() if risky)


def _is_remote(web: WebConfig) -> bool:
    address = web.address
    return isinstance(address, tuple) and not config_text.is_loopback(address[0])
