"""The configuration: one frozen tree, every key with a default, a unit and its check.

Reads TOML; refuses unknown keys, wrong units and impossible combinations, all of them at once, each
with file, line, key and what would be right. Nothing below this module reads a file or an
environment. A cron expression is checked where it is understood: `daemon.schedule.validate_cron`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from ds01d import config_text
from ds01d.config_text import show_value
from ds01d.errors import ConfigError

DEFAULT_PATH = Path("/etc/ds01/ds01d.toml")
ENVIRONMENT = "DS01D_CONFIG"
_MAX_PROBLEMS = 20
MAX_SOCKET_PATH = 107  # bytes, unix(7)


class Seconds(float):
    """A duration: written "10s", "2m", "1h30m", "500ms"; kept in seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Seconds:
        """Read a duration as it is written. Raises ValueError with what would be right."""
        return cls(config_text.parse_seconds(text))


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a key that it does not have is refused."""


def _duration(name: str, default: float) -> Any:  # noqa: ANN401 - msgspec.field is typed so
    return msgspec.field(name=name, default=Seconds(default))


class DockerConfig(_Table, frozen=True):
    """[docker]: the engine's socket and the deadline of each call."""

    url: str = "unix:///run/docker.sock"
    timeout_s: Seconds = _duration("timeout", 10)


class GpuConfig(_Table, frozen=True):
    """[gpu]: where the inventory comes from and the deadline of one sample."""

    source: Literal["nvml", "none"] = "nvml"
    timeout_s: Seconds = _duration("timeout", 60)


class BooksConfig(_Table, frozen=True):
    """[books]: the allocator's files."""

    state: Path = Path("/var/lib/ds01/gpu-state.json")
    metadata: Path = Path("/var/lib/ds01/container-metadata")
    limits: Path = Path("/opt/ds01-infra/config/resource-limits.yaml")
    writers: Literal["group", "service"] = "group"
    whole_gpus: Literal["without-mig", "always"] = "without-mig"
    lock_timeout_s: Seconds = _duration("lock_timeout", 5)


class LogsConfig(_Table, frozen=True):
    """[logs]: the two logs that ds01d adds lines to, and the level of its own log."""

    operations: Path = Path("/var/log/ds01/container-operations.log")
    allocations: Path = Path("/var/log/ds01/gpu-allocations.log")
    syslog: bool = True
    level: Literal["debug", "info", "warning", "error"] = "info"


class DaemonConfig(_Table, frozen=True):
    """[daemon]: where it keeps its own state, and when it sweeps."""

    state_dir: Path = Path("/var/lib/ds01d")
    mode: Literal["repair", "observe"] = "repair"
    sweep_interval_s: Seconds = _duration("sweep_interval", 60)
    sweep_jitter_s: Seconds = _duration("sweep_jitter", 5)
    sweep_cron: str = ""


class Policy(_Table, frozen=True):
    """[policy]: how long to wait before a difference is settled, and how much at a time."""

    settle_s: Seconds = _duration("settle", 5)
    absence_grace_s: Seconds = _duration("absence_grace", 120)
    creation_grace_s: Seconds = _duration("creation_grace", 900)
    freeze_s: Seconds = _duration("freeze", 120)
    boot_grace_s: Seconds = _duration("boot_grace", 900)
    pace_count: int = 2
    pace_fraction: float = 0.25
    pace_window_s: Seconds = _duration("pace_window", 600)
    adopt: Literal["managed", "off"] = "managed"


class AllocatorConfig(_Table, frozen=True):
    """[allocator]: what the drop-in allocator may do."""

    sharing: Literal["when-full", "never"] = "when-full"
    all_gpus: Literal["when-used", "always"] = "when-used"


class ExemptConfig(_Table, frozen=True):
    """[exempt]: containers that only watch GPUs, by patterns as a shell has them (`*`, `?`, `[…]`).

    A label pattern is `key` or `key=value`; an image may be named with or without its tag.
    """

    labels: tuple[str, ...] = ("ds01.protected=true",)
    images: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class ContainersConfig(_Table, frozen=True):
    """[containers]: what the container commands create containers from."""

    frameworks: Path = Path("/etc/ds01/frameworks.toml")


class ServiceConfig(_Table, frozen=True):
    """[service]: the socket for bookings, and who may use it."""

    socket: str = "/run/ds01d/booking.sock"
    from_containers: bool = False

    @property
    def path(self) -> Path | None:
        """`socket` as a path, None if it is off."""
        return Path(self.socket) if self.socket else None


class MetricsConfig(_Table, frozen=True):
    """[metrics]: off unless one of them is set."""

    listen: str = ""
    textfile: str = ""

    @property
    def address(self) -> tuple[str, int] | None:
        """`listen` as host and port, None if it is off."""
        return config_text.host_and_port(self.listen) if self.listen else None


class Config(_Table, frozen=True):
    """The whole configuration."""

    docker: DockerConfig = DockerConfig()
    gpu: GpuConfig = GpuConfig()
    books: BooksConfig = BooksConfig()
    logs: LogsConfig = LogsConfig()
    daemon: DaemonConfig = DaemonConfig()
    policy: Policy = Policy()
    allocator: AllocatorConfig = AllocatorConfig()
    exempt: ExemptConfig = ExemptConfig()
    containers: ContainersConfig = ContainersConfig()
    service: ServiceConfig = ServiceConfig()
    metrics: MetricsConfig = MetricsConfig()


def find_named_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file that somebody names, by argument or by DS01D_CONFIG; None if nobody does."""
    return path or (Path(environ[ENVIRONMENT]) if environ.get(ENVIRONMENT) else None)


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration in `path`, else in DS01D_CONFIG, else in /etc/ds01/ds01d.toml.

    Only the last may be missing: then everything has its default. Raises ConfigError.
    """
    named = find_named_file(path, environ)
    file = named or DEFAULT_PATH
    try:
        text = config_text.read_config(file)
    except FileNotFoundError as error:
        if named is None:
            return Config()
        source = "" if path else f" (named by {ENVIRONMENT})"
        raise ConfigError(f"{file}{source}: no such file: create it or name another one") from error
    except PermissionError as error:
        raise ConfigError(f"{file}: may not be read: give its reader the right to") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    return parse_config(text, origin=str(file))


def parse_config(text: str, *, origin: str) -> Config:
    """The configuration in `text`. Raises ConfigError with every problem, one a line."""
    try:
        raw = msgspec.toml.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: is not TOML: {error}") from error
    problems: list[tuple[str, str]] = []
    config = _build_config(raw, problems)
    problems = problems or [*_find_impossible(config)]
    if problems:
        lines = [
            f"{origin}{config_text.locate_key(text, key)}: {show_value(key)[1:-1]}: {problem}"
            for key, problem in problems[:_MAX_PROBLEMS]
        ]
        if len(problems) > _MAX_PROBLEMS:
            lines.append(f"{origin}: and {len(problems) - _MAX_PROBLEMS} more")
        raise ConfigError("\n".join(lines))
    return config


def _build_config(raw: Mapping[str, object], problems: list[tuple[str, str]]) -> Config:
    tables: dict[str, Any] = {}
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(Config)}
    for name, table in raw.items():
        if name not in fields:
            problems.append((name, f"unknown table: {config_text.suggest_name(name, fields)}"))
        elif not isinstance(table, dict):
            problems.append((name, f"is a table: write [{name}] and its keys below"))
        else:
            tables[name] = _build_table(fields[name], name, table, problems)
    return Config(**tables)


def _build_table(
    kind: type[_Table], name: str, raw: Mapping[str, object], problems: list[tuple[str, str]]
) -> _Table:
    values: dict[str, Any] = {}
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key, value in raw.items():
        if key not in fields:
            problems.append(
                (f"{name}.{key}", f"unknown key: {config_text.suggest_name(key, fields)}")
            )
            continue
        try:
            values[fields[key].name] = _convert_value(value, fields[key].type)
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            problems.append((f"{name}.{key}", str(error)))
    return kind(**values)


def _convert_value(value: object, kind: Any) -> object:  # noqa: ANN401 - a type as msgspec understands it
    if get_origin(kind) is Literal and value not in get_args(kind):
        allowed = " or ".join(f'"{word}"' for word in get_args(kind))
        raise ValueError(f"{show_value(value)} is not possible: write {allowed}")
    return msgspec.convert(value, kind, dec_hook=_decode_type)


def _decode_type(kind: type, value: object) -> object:
    """The types that msgspec leaves to us."""
    return Seconds.parse(value) if kind is Seconds else config_text.parse_path(value)


def _find_impossible(config: Config) -> Iterator[tuple[str, str]]:
    """What is well formed and cannot work: (key, why, and what would be right)."""
    daemon, policy = config.daemon, config.policy
    deadlines = {"docker.timeout": config.docker.timeout_s}
    if config.gpu.source == "nvml":
        deadlines["gpu.timeout"] = config.gpu.timeout_s
    waits = {"daemon.sweep_interval": daemon.sweep_interval_s}
    for key, wait in {**deadlines, **waits, "policy.pace_window": policy.pace_window_s}.items():
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
    if not 0 <= policy.pace_count <= 1_000_000:
        yield "policy.pace_count", "write a whole number from 0 to 1000000"
    if not 0 <= policy.pace_fraction <= 1:  # NaN included
        yield "policy.pace_fraction", "write a fraction from 0 to 1, like 0.25"
    yield from _find_bad_patterns(config.exempt)
    yield from _find_bad_addresses(config)
    yield from _find_bad_paths(config)


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


def _find_bad_paths(config: Config) -> Iterator[tuple[str, str]]:
    paths = {
        "books.metadata": config.books.metadata,
        "books.state": config.books.state,
        "books.limits": config.books.limits,
        "logs.operations": config.logs.operations,
        "logs.allocations": config.logs.allocations,
        "daemon.state_dir": config.daemon.state_dir,
        "containers.frameworks": config.containers.frameworks,
    }
    if config.service.path is not None:
        try:
            paths["service.socket"] = config_text.parse_path(config.service.socket)
        except ValueError as error:
            yield "service.socket", str(error)
        if len(os.fsencode(config.service.socket)) > MAX_SOCKET_PATH:
            yield "service.socket", f"longer than {MAX_SOCKET_PATH} bytes: choose a shorter path"
    if config.metrics.textfile:
        try:
            paths["metrics.textfile"] = config_text.parse_path(config.metrics.textfile)
        except ValueError as error:
            yield "metrics.textfile", str(error)
        if not config.metrics.textfile.endswith(".prom"):
            yield "metrics.textfile", "node_exporter reads only what ends in .prom: call it so"
    keys: dict[Path, str] = {}
    for key, path in paths.items():
        if path in keys:
            yield key, f"the same path as {keys[path]}: each needs its own"
        elif config.books.metadata in path.parents:
            yield key, "lies in books.metadata, where every file is a record: choose another place"
        keys.setdefault(path, key)


def describe_risks(config: Config) -> tuple[str, ...]:
    """What is allowed but risky, a sentence each, for the log at start."""
    policy, metrics = config.policy, config.metrics
    is_fast = policy.pace_count > 20 or policy.pace_fraction > 0.5
    folder = os.path.dirname(metrics.textfile)  # noqa: PTH120 - isdir never raises
    homeless = metrics.textfile and not os.path.isdir(folder)  # noqa: PTH112
    is_always = config.books.whole_gpus == "always"
    is_remote = config.docker.url.startswith(("tcp:", "http:"))
    slow_start = "a container that is slow to start may lose the GPU booked for it"
    texts = {
        f"policy.creation_grace is under a minute: {slow_start}": policy.creation_grace_s < 60,
        "policy.absence_grace is under 30s: a container that is only being replaced may lose its"
        " booking": policy.absence_grace_s < 30,
        "policy.settle is under 1s: books half written may look like drift": policy.settle_s < 1,
        "policy.freeze is under 10s: GPUs half set up may look like a layout": policy.freeze_s < 10,
        "policy.pace_count or pace_fraction is high: one wrong answer may release most bookings"
        " before anybody can freeze": is_fast,
        "docker.url is unprotected: whatever answers there decides about releases": is_remote,
        "books.whole_gpus is always: a legacy allocator keeps dropping such slots": is_always,
        f"metrics.textfile: no directory {folder}, so nothing is written": bool(homeless),
    }
    return tuple(text for text, risky in texts.items() if risky)
