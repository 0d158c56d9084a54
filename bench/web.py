"""The web page: what its readers cost, by processor time; the daemon's share and the page's own.

Each reader polls as the page does, every five seconds with the ETag that it has, from a thread of
this process; what they themselves take is not in the figures.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Final

from bench.daemon import ROOT, Daemon, cpu_s, memory
from bench.figures import Figure
from bench.host import Host
from ds01d.reporting import status_file
from ds01d.web.content import POLL_S
from simulation.ports import find_free_port

READERS: Final = 50
CORE_TARGET_PERCENT: Final = 1.0
RSS_TARGET_MIB: Final = 64.0


def figures(host: Host, lasting_s: float) -> Iterator[Figure]:
    """Run daemon and page for so long without readers, then for so long with them."""
    port = find_free_port()
    with Daemon(host) as daemon, open_page(host, port) as page:
        daemon.sweep()
        _read(port, "")  # what is loaded at the first reader
        idle = _measure(daemon, page, lasting_s)
        with poll_page(port, READERS):
            time.sleep(POLL_S)  # the first of each reads all of it
            busy = _measure(daemon, page, lasting_s)
            with _changes(host):
                changing = _measure(daemon, page, lasting_s)
        rss = memory(page).rss / (1 << 20)
    size = len(host.names)
    rows = (
        (f"web page, {READERS} readers, the daemon's part", busy[0] - idle[0], CORE_TARGET_PERCENT),
        (f"web page, {READERS} readers, its own part", busy[1], CORE_TARGET_PERCENT),
        (
            "  the daemon's part while its status changes",
            changing[0] - idle[0],
            CORE_TARGET_PERCENT,
        ),
        ("  its own part while the status changes", changing[1], None),
        ("web page, no readers", idle[1], None),
    )
    for name, value, target in rows:
        yield Figure(name=name, containers=size, value=value, unit="% core", target=target)
    yield Figure(
        name="web page, RSS", containers=size, value=rss, unit="MiB", target=RSS_TARGET_MIB
    )


def _measure(daemon: Daemon, page: int, lasting_s: float) -> tuple[float, float]:
    """Percent of a core that daemon and page take."""
    pids = ((daemon.pid, daemon.worker), (page,))
    before, began = [sum(map(cpu_s, group)) for group in pids], time.monotonic()
    time.sleep(lasting_s)
    lasted = time.monotonic() - began
    used = [sum(map(cpu_s, group)) - spent for group, spent in zip(pids, before, strict=True)]
    return 100 * used[0] / lasted, 100 * used[1] / lasted


@contextmanager
def open_page(host: Host, port: int) -> Iterator[int]:
    """Serve it until the end of the block; gives its pid."""
    command = [sys.executable, "-m", "ds01d.cli.ctl.main", "web", f"--listen=127.0.0.1:{port}"]
    environment = os.environ | host.environment | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, f"--config={host.config}"], cwd="/", env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith(b"serving")
            yield process.pid
        finally:
            process.terminate()


@contextmanager
def poll_page(port: int, readers: int) -> Iterator[None]:
    """Let so many readers look at it, until the end of the block."""
    ended = threading.Event()

    def poll(number: int) -> None:
        etag = ""
        ended.wait(number * POLL_S / readers)
        while not ended.is_set():
            etag = _read(port, etag)
            ended.wait(POLL_S)

    threads = [threading.Thread(target=poll, args=(number,)) for number in range(readers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def _changes(host: Host) -> Iterator[None]:
    """Make the status look like a new one each second, as on a host where something happens."""
    ended = threading.Event()
    file = host.own / status_file.NAME

    def change() -> None:
        while not ended.wait(1.0):
            os.utime(file)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _read(port: int, etag: str) -> str:
    """Ask as the page does; gives the new ETag."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Accept-Encoding": "gzip", "If-None-Match": etag}
    connection.request("GET", "/page.json", headers=headers)
    reply = connection.getresponse()
    content = reply.read()
    assert reply.status in (200, 304), reply.status
    if reply.status == 200 and reply.getheader("Content-Encoding") is None:
        assert "error" not in json.loads(content)["status"]
    connection.close()
    return reply.getheader("ETag") or ""
