"""All that can be switched on, beside the same daemon with all of it off: memory and idle time.

On: notices to terminals, greetings, mail and the lab's folder with a hundred requests for one, idle
containers, device checks, accounting, metrics on a port and in a file, and the web page: first
without a reader, who is not idle, then with one, who polls as the page does.

The report of device checks has a fixed place, so the daemon sees it in a mount namespace of its
own, and nothing of the machine changes. With cgroup v1 it reads the rules of each container
instead; there the containers are allowed NVIDIA's devices.
"""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench import service, web
from bench.daemon import Bare, Daemon, memory
from bench.figures import Figure
from bench.host import GPUS, REAL, Host, make_world
from ds01d.adapters.docker.decoding import parse_time
from ds01d.adapters.host.access_report import REPORT, AccessReport
from ds01d.adapters.host.clocks import HostClock
from ds01d.adapters.host.device_cgroups import HIERARCHY
from ds01d.adapters.notices.spool import FILE as SPOOL_FILE
from ds01d.adapters.notices.spool import spool_folder
from ds01d.model.device_access import CONTROL_MINOR, NVIDIA_MAJOR, TriedAccess
from ds01d.model.primitives import ContainerId, Wall
from ds01d.service.notice_requests import FILE
from simulation.ports import find_free_port

CONTAINERS: Final = REAL
REQUESTS: Final = 100
IDLE_AFTER_S: Final = 5.0
_WEEK_S: Final = 7 * 24 * 3600.0

OFF: Final = """\
[accounting]
keep_days = 0
"""
ON: Final = """\
[policy]
idle_after = "{idle_after_s:.0f}s"
[notify]
terminals = true
greetings = true
mail = "smtp://localhost:25"
alerts = "{root}/alerts"
state_dir = "{root}/notifier"
[metrics]
listen = "127.0.0.1:{port}"
textfile = "{root}/metrics/ds01d.prom"
"""


def figures(host: Host, lasting_s: float, floor: Bare) -> Iterator[Figure]:
    """Run it with all off, with all on, and with a reader, each for so long after some sweeps."""
    _idle_every_second(host)
    with _configured(host, OFF), Daemon(host) as daemon:
        daemon.sweep()
        without = service.measure(daemon, lasting_s)
    yield from service.describe_use("all options off", host, without, floor)

    for folder in ("alerts", "notifier", "metrics"):
        (host.root / folder).mkdir(exist_ok=True)
    tables = ON.format(root=host.root, port=find_free_port(), idle_after_s=IDLE_AFTER_S)
    with ExitStack() as stack:
        stack.enter_context(_configured(host, tables))
        _write_requests(host)
        wrapper = stack.enter_context(_show_device_report(host))
        daemon = stack.enter_context(Daemon(host, wrapper))
        page = stack.enter_context(web.open_page(host, port := find_free_port()))
        daemon.sweep()
        # What is given once, the notices about idle containers, is no part of idle time.
        time.sleep(IDLE_AFTER_S)
        daemon.sweep()
        with_all = service.measure(daemon, lasting_s)
        yield from service.describe_use("all options on", host, with_all, floor)
        with web.poll_page(port, readers=1):
            read = service.measure(daemon, lasting_s)
        _require_all_on(host)
        rss = memory(page).rss
    size = len(host.names)
    rows = (
        ("  with a reader of the page, highest RSS", read.rss / (1 << 20), "MiB"),
        ("  with a reader of the page, processor", 100 * read.core, "% core"),
        ("  web page itself, RSS", rss / (1 << 20), "MiB"),
    )
    for name, value, unit in rows:
        yield Figure(name=name, containers=size, value=value, unit=unit)


def _require_all_on(host: Host) -> None:
    """Fail where a part did not run: its figure would be that of nothing."""
    checkpoint = json.loads((host.own / "checkpoint.json").read_bytes())["memory"]
    seen = {key: bool(checkpoint.get(key)) for key in ("idle", "device_access")}
    seen |= {
        "notices": (spool_folder(host.own) / SPOOL_FILE).stat().st_size > 0,
        "alerts": any((host.root / "alerts").iterdir()),
        "accounting": (host.own / "accounting.sqlite").stat().st_size > 0,
        "metrics": b"ds01d_slots" in (host.root / "metrics" / "ds01d.prom").read_bytes(),
        "requests": len(json.loads((host.own / FILE).read_bytes())) == REQUESTS,
    }
    assert all(seen.values()), seen


def _idle_every_second(host: Host) -> None:
    """Let every second running container use nothing of its device."""
    world = make_world()
    for row in host.client.containers()[::2]:
        pid = host.client.inspect_container(row["Id"])["State"]["Pid"]
        world = world.with_process(row["Labels"]["ds01.gpu.allocated"], pid)
    world.write(host.root / "nvml-world")


@contextmanager
def _configured(host: Host, tables: str) -> Iterator[None]:
    """Add tables to the configuration, until the end of the block."""
    before = host.config.read_text("utf-8")
    host.config.write_text(before + tables, encoding="utf-8")
    try:
        yield
    finally:
        host.config.write_text(before, encoding="utf-8")


def _write_requests(host: Host) -> None:
    """A request of many users each: with every slot held, none of them ends."""
    now = time.time()
    requests = [
        {"user": f"user{number}", "count": 1, "since": now, "until": now + _WEEK_S}
        for number in range(REQUESTS)
    ]
    (host.own / FILE).write_text(json.dumps(requests), encoding="utf-8")


@contextmanager
def _show_device_report(host: Host) -> Iterator[Sequence[str]]:
    """The command in whose mount namespace the report is where ds01d looks for it."""
    folder = host.root / "devices"
    folder.mkdir(exist_ok=True)
    minors = frozenset((*range(GPUS), CONTROL_MINOR))
    tried = [
        TriedAccess(container=container, started=started, allowed=minors, denied=frozenset())
        for container, started in _list_running(host)
    ]
    _allow_devices({access.container for access in tried})
    AccessReport(folder / REPORT.name).write(tried, HostClock().now())
    place = REPORT.parent
    is_made = _make_place(place)
    script = f'mount --bind "{folder}" "{place}" && exec "$@"'
    try:
        yield ("unshare", "--mount", "sh", "-euc", script, "sh")
    finally:
        if is_made:
            place.rmdir()


def _allow_devices(containers: Collection[ContainerId]) -> None:
    for folder in HIERARCHY.rglob("*") if HIERARCHY.is_dir() else ():
        if folder.name in containers:
            (folder / "devices.allow").write_text(f"c {NVIDIA_MAJOR}:* rwm", encoding="ascii")


def _list_running(host: Host) -> Iterator[tuple[ContainerId, Wall]]:
    for row in host.client.containers():
        state = host.client.inspect_container(row["Id"])["State"]
        # To the digit: what was tried before another start counts for nothing.
        if (started := parse_time(state["StartedAt"])) is not None:
            yield ContainerId(row["Id"]), started


def _make_place(place: Path) -> bool:
    """Make the empty folder that is mounted over, where ds01d-devices.timer has made none."""
    try:
        place.mkdir(mode=0o755)
    except FileExistsError:
        return False
    return True
