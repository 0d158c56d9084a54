"""The configuration: one frozen tree, every key with a default and its unit.

`config_file` reads it, `config_checks` has what is well formed and cannot work, or is risky.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from ds01d import config_text
from ds01d.config_values import ConfigTable, Durations, Seconds, duration_field

READING_S: Final = 300.0
"""What was read of the use of a slot is no evidence for the time later than this."""


class DockerConfig(ConfigTable, frozen=True):
    """[docker]: the engine's socket and the deadline of each call."""

    url: str = "unix:///run/docker.sock"
    timeout_s: Seconds = duration_field("timeout", 10)


class GpuConfig(ConfigTable, frozen=True):
    """[gpu]: where the inventory comes from and the deadline of one sample."""

    source: Literal["nvml", "none"] = "nvml"
    timeout_s: Seconds = duration_field("timeout", 60)


class BooksConfig(ConfigTable, frozen=True):
    """[books]: the allocator's files; with `kind = "docker"` there are none, but reservations."""

    kind: Literal["files", "docker"] = "files"
    # The files of the allocator that ds01d works beside: the defaults find them.
    state: Path = Path("/var/lib/ds01/gpu-state.json")
    metadata: Path = Path("/var/lib/ds01/container-metadata")
    limits: Path = Path("/opt/ds01-infra/config/resource-limits.yaml")
    owners: Path = Path("/var/lib/ds01/opa/container-owners.json")
    writers: Literal["group", "service"] = "group"
    whole_gpus: Literal["without-mig", "always"] = "without-mig"
    lock_timeout_s: Seconds = duration_field("lock_timeout", 5)


class LogsConfig(ConfigTable, frozen=True):
    """[logs]: the logs that ds01d adds lines to, and the level of its own log."""

    operations: Path = Path("/var/log/ds01/container-operations.log")
    allocations: Path = Path("/var/log/ds01/gpu-allocations.log")
    events: str = ""
    syslog: bool = True
    level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def events_path(self) -> Path | None:
        """`events` as a path, None if it is off."""
        return Path(self.events) if self.events else None


class DaemonConfig(ConfigTable, frozen=True):
    """[daemon]: where it keeps its own state, and when it sweeps."""

    state_dir: Path = Path("/var/lib/ds01d")
    mode: Literal["repair", "observe"] = "repair"
    sweep_interval_s: Seconds = duration_field("sweep_interval", 60)
    sweep_jitter_s: Seconds = duration_field("sweep_jitter", 5)
    sweep_cron: str = ""


class Policy(ConfigTable, frozen=True):
    """[policy]: how long to wait before a drift is repaired, and how many at a time."""

    settle_s: Seconds = duration_field("settle", 5)
    absence_grace_s: Seconds = duration_field("absence_grace", 120)
    creation_grace_s: Seconds = duration_field("creation_grace", 900)
    reservation_limit_s: Seconds = duration_field("reservation_limit", 7200)
    freeze_s: Seconds = duration_field("freeze", 120)
    boot_grace_s: Seconds = duration_field("boot_grace", 900)
    pace_count: int = 2
    pace_fraction: float = 0.25
    pace_window_s: Seconds = duration_field("pace_window", 600)
    adopt: Literal["managed", "off"] = "managed"
    expired_holds: Literal["release", "report"] = "release"
    idle_after_s: Seconds = duration_field("idle_after", 0)
    idle_utilization: int = 0


class AccountingConfig(ConfigTable, frozen=True):
    """[accounting]: how long it is kept who had which slot."""

    keep_days: int = 1830


class AllocatorConfig(ConfigTable, frozen=True):
    """[allocator]: what the drop-in allocator may do."""

    sharing: Literal["when-full", "never"] = "when-full"
    all_gpus: Literal["when-used", "always"] = "when-used"


class ExemptConfig(ConfigTable, frozen=True):
    """[exempt]: containers that only watch GPUs, by patterns as a shell has them (`*`, `?`, `[…]`).

    A label pattern is `key` or `key=value`; an image may be named with or without its tag.
    """

    labels: tuple[str, ...] = ("ds01.protected=true",)
    images: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class ContainersConfig(ConfigTable, frozen=True):
    """[containers]: what the container commands create containers from."""

    frameworks: Path = Path("/etc/ds01/frameworks.toml")
    pull_idle_s: Seconds = duration_field("pull_idle", 120)
    pull_timeout_s: Seconds = duration_field("pull_timeout", 7200)


class ServiceConfig(ConfigTable, frozen=True):
    """[service]: the socket for bookings and containers, and who may use it."""

    socket: str = "/run/ds01d/booking.sock"
    from_containers: bool = False
    containers: bool = False
    root_in_containers: bool = False

    @property
    def path(self) -> Path | None:
        """`socket` as a path, None if it is off."""
        return Path(self.socket) if self.socket else None


class NotifyConfig(ConfigTable, frozen=True):
    """[notify]: how users get to know what becomes of their GPUs; off unless set.

    `alerts` is written by ds01d itself; all else is sent by ds01d-notify.
    """

    alerts: str = ""
    hold_warnings_s: Durations = msgspec.field(
        name="hold_warning", default=Durations((Seconds(1800), Seconds(300)))
    )
    terminals: bool = False
    greetings: bool = False
    command: str = ""
    mail: str = ""
    mail_domain: str = ""
    webhook: str = ""
    webhook_form: Literal["json", "slack", "teams"] = "json"
    quiet_hours: str = ""
    state_dir: Path = Path("/var/lib/ds01d-notify")

    @property
    def folder(self) -> Path | None:
        """`alerts` as a path, None if it is off."""
        return Path(self.alerts) if self.alerts else None

    @property
    def uses_sender(self) -> bool:
        """Whether ds01d-notify has anything to do."""
        return bool(self.terminals or self.greetings or self.command or self.mail or self.webhook)


class MetricsConfig(ConfigTable, frozen=True):
    """[metrics]: off unless one of them is set."""

    listen: str = ""
    textfile: str = ""

    @property
    def address(self) -> tuple[str, int] | None:
        """`listen` as host and port, None if it is off."""
        return config_text.host_and_port(self.listen) if self.listen else None


class WebConfig(ConfigTable, frozen=True):
    """[web]: the page of `ds01ctl web`; off unless `listen` is set.

    `hosts`: names under which it is reached besides that of `listen`, as through a proxy.
    """

    listen: str = ""
    remote: bool = False
    hosts: tuple[str, ...] = ()
    hide_users: bool = False

    @property
    def address(self) -> Path | tuple[str, int] | None:
        """`listen` as the path of a socket or as host and port, None if it is off."""
        return config_text.parse_web_address(self.listen) if self.listen else None


class FleetConfig(ConfigTable, frozen=True):
    """[fleet]: the hosts that commands ask over ssh, and the store (`etcd`) that all share."""

    hosts: tuple[str, ...] = ()
    hosts_file: str = ""
    view_file: Path = Path("/run/ds01d-hosts/hosts.json")
    etcd: tuple[str, ...] = ()
    when_away: Literal["local", "refuse"] = "local"
    name: str = ""
    certificates: str = ""
    user: str = ""


class Config(ConfigTable, frozen=True):
    """The whole configuration."""

    docker: DockerConfig = DockerConfig()
    gpu: GpuConfig = GpuConfig()
    books: BooksConfig = BooksConfig()
    logs: LogsConfig = LogsConfig()
    daemon: DaemonConfig = DaemonConfig()
    policy: Policy = Policy()
    accounting: AccountingConfig = AccountingConfig()
    allocator: AllocatorConfig = AllocatorConfig()
    exempt: ExemptConfig = ExemptConfig()
    containers: ContainersConfig = ContainersConfig()
    service: ServiceConfig = ServiceConfig()
    notify: NotifyConfig = NotifyConfig()
    metrics: MetricsConfig = MetricsConfig()
    web: WebConfig = WebConfig()
    fleet: FleetConfig = FleetConfig()

    def __post_init__(self) -> None:
        """With Docker as the books the files are ds01d's own, and have only reservations."""
        if self.books.kind == "docker":
            folder = self.daemon.state_dir
            books = msgspec.structs.replace(
                self.books,
                state=folder / "reservations.json",
                metadata=folder / "reservations",
                writers="service",
                whole_gpus="always",  # there is no legacy allocator that would drop them
            )
            msgspec.structs.force_setattr(self, "books", books)

    @property
    def is_only_writer(self) -> bool:
        """ds01d takes the right to write the books from everybody else."""
        return self.books.writers == "service" and self.daemon.mode == "repair"

    @property
    def booking_socket(self) -> Path | None:
        """Where commands book; None where the service is off, or books nothing (decision 179)."""
        return None if self.daemon.mode == "observe" else self.service.path
