"""Take the pictures of the web page from a run of ds01d: docs/web.png, or all of them.

    tools/screenshot.py [FOLDER]

The host is that of `make demo`: a real Docker engine of its own, a stand-in for NVIDIA's library,
users whom only this ds01d knows. The week before was never lived; its hours are written beforehand.
Needs root, Chromium, and what `make setup` installs. Makes a picture smaller by optipng if it is
there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from demo.stage import Stage  # noqa: E402 - from that folder
from ds01d.adapters.accounting_file import AccountingFile  # noqa: E402
from ds01d.model.accounting import (  # noqa: E402
    AccountingChange,
    AccountingProgress,
    BookingBegun,
    BookingEnded,
    ClockSet,
    SlotUse,
    SlotWeight,
    TimeDivided,
)
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, UserName, Wall  # noqa: E402
from simulation.engine import IMAGE  # noqa: E402
from simulation.ports import find_free_port  # noqa: E402
from simulation.signals import own_signals  # noqa: E402
from tests.support.books import until  # noqa: E402
from tests.support.browser import Browser, find_browser  # noqa: E402
from tests.support.web import request, serving  # noqa: E402

DAY_S: Final = 86_400
HOUR_S: Final = 3_600
# GPU hours of each day before today: used, idle, retained.
WEEK: Final = ((61, 12, 5), (70, 9, 2), (74, 6, 4), (48, 22, 9), (80, 5, 1), (33, 8, 12))
SIZES: Final = ((1280, 900), (360, 800))


def live_a_week(folder: Path) -> None:
    """Write the accounting of the days before, as ds01d would have."""
    folder.mkdir()
    now = time.time()
    midnight = time.mktime((*time.localtime(now)[:3], 0, 0, 0, 0, 0, -1))
    boot = midnight - 8 * DAY_S
    changes: list[AccountingChange] = [ClockSet(boot_id="before", offset=boot, step_s=0.0)]

    def moment(at: float) -> Now:
        return Now(wall=Wall(at), boot=Boot(at - boot), boot_id="before")

    for number, hours in enumerate(WEEK, 1):
        day = midnight - (len(WEEK) + 1 - number) * DAY_S
        weight = SlotWeight(profile="", gpus=4.0)
        changes.append(
            BookingBegun(
                id=number,
                container=ContainerName(f"week{number}"),
                user=UserName("amy"),
                slot=SlotId("0"),
                weight=weight,
                at=moment(day),
            )
        )
        for use, share in zip(SlotUse, hours, strict=True):
            begin = {SlotUse.USED: 0, SlotUse.IDLE: hours[0], SlotUse.RETAINED: sum(hours[:2])}[use]
            changes += _divide(number, day, begin / 4, share / 4, use)
        end = moment(day + sum(hours) / 4 * HOUR_S)
        changes.append(BookingEnded(id=number, at=end, reason="released"))
    progress = AccountingProgress(
        observed=moment(now), complete_since=Wall(boot), sampled_since=Wall(boot)
    )
    file = AccountingFile(folder, 1000)
    file.load()
    file.save(changes, progress, next_id=len(WEEK) + 1)
    file.close()


def _divide(number: int, day: float, begin: float, hours: float, use: SlotUse) -> list[TimeDivided]:
    """So many hours of one use, from `begin` hours after midnight on, divided into hours."""
    parts = []
    while hours > 1e-9:
        part = min(hours, 1 - begin % 1)
        hour = int((day + begin * HOUR_S) // HOUR_S)
        parts.append(TimeDivided(id=number, hour=hour, seconds={use: part * HOUR_S}))
        begin, hours = begin + part, hours - part
    return parts


def run(stage: Stage, command: str) -> None:
    subprocess.run(
        ["sh", "-ec", command],
        env=dict(stage.env),
        cwd=stage.folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def someone_waits(stage: Stage) -> Iterator[None]:
    """A user at the limit, who waits for one more slot."""
    command = ["as", "ben", "ds01ctl", "allocate", "ben", "sweep._.64002", "--wait"]
    with subprocess.Popen(
        command,
        env=dict(stage.env),
        cwd=stage.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def fill_stage(stage: Stage) -> None:
    """Some days' work of two users: running, stopped, gone without a release, on a device alone."""
    live_a_week(stage.folder / "ds01d")
    slots = stage.gpus.slots()
    labels = "--label ds01.managed=true --label ds01.user=datasciencelab"
    final = "test-final._.1001"
    run(stage, f"docker run -d --name {final} --network none {labels}"
        f" --gpus device={slots['1.2']} {IMAGE} sleep 600")  # fmt: skip
    stage.use_gpu("1.2", stage.engine.pid_of(final))
    stage.start_daemon()
    until((stage.folder / "ds01d/status.json").exists, 60)
    until(lambda: stage.status()["ready"], 60)
    for user, name, uid in (
        ("amy", "train", 64001), ("amy", "eval", 64001), ("ben", "notebook", 64002),
        ("ben", "render", 64002),
    ):  # fmt: skip
        run(stage, f"as {user} container-create {name} pytorch")
        whole = f"{name}._.{uid}"
        slot = next(slot for slot, holder in stage.bookings().items() if holder == whole)
        stage.use_gpu(slot, stage.engine.pid_of(whole))
    stage.leave_gpu(stage.engine.pid_of("notebook._.64002"))
    run(stage, "as ben container-stop notebook")
    run(stage, f"docker run -d --name viewer --network none --gpus device={slots['3.0']}"
        f" {IMAGE} sleep 600")  # fmt: skip
    stage.use_gpu("3.0", stage.engine.pid_of("viewer"))
    os.kill(stage.pid, 1)


def show_page(browser: Browser, port: int, width: int, height: int, *, dark: bool = False) -> None:
    browser.resize(width, height, dark=dark)
    browser.open(f"http://127.0.0.1:{port}/")
    # Whoever reads it has an address of their own.
    browser.evaluate("document.getElementById('place').textContent = 'localhost:9465'")


def take_pictures(stage: Stage, folder: Path) -> None:
    program = find_browser()
    assert program is not None, "no Chromium: apt-get install chromium-headless-shell"
    port = find_free_port()
    environment = {**stage.env, "PYTHONPATH": str(ROOT)}
    config = stage.folder / "ds01d.toml"
    with (
        someone_waits(stage),
        serving(config, environment, f"127.0.0.1:{port}"),
        Browser(program) as browser,
    ):
        until(lambda: b'"position": 1' in request(port, "/page.json").body, 60)
        until(lambda: b"viewer" in request(port, "/page.json").body, 60)
        for width, height in SIZES:
            for dark in (False, True):
                show_page(browser, port, width, height, dark=dark)
                name = f"web-{width}{'-dark' if dark else ''}.png"
                (folder / name).write_bytes(browser.take_picture())
        assert browser.complaints == [], browser.complaints
        show_page(browser, port, 1280, 1180)
        picture = folder / "web.png"
        picture.write_bytes(browser.take_picture(whole=False))
    if shutil.which("optipng"):
        subprocess.run(["optipng", "-quiet", "-o5", "-strip", "all", picture], check=True)


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with Stage() as stage:
        fill_stage(stage)
        pictures = folder or stage.folder / "pictures"
        pictures.mkdir(exist_ok=True)
        take_pictures(stage, pictures)
        if folder is None:
            shutil.copy(pictures / "web.png", ROOT / "docs" / "web.png")
    return 0


if __name__ == "__main__":
    own_signals()
    sys.exit(main())
