"""How long a report takes over a year of bookings: `.venv/bin/python bench/accounting.py`.

Makes an accounting of 365 days with 1,000 bookings each on 56 slots, and reads it as `ds01ctl
report` does; then the command as a whole. Wall-clock time and processor time, the best of three.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# In the place of this folder, where `bench` would be a file.
sys.path[0] = str(ROOT)

from ds01d.adapters.accounting_file import AccountingFile  # noqa: E402 - see above
from ds01d.adapters.accounting_reader import open_reader  # noqa: E402
from ds01d.documents.usage_report import build_usage_report  # noqa: E402
from ds01d.model.accounting import (  # noqa: E402
    AccountingChange,
    AccountingProgress,
    BookingBegun,
    BookingEnded,
    ClockSet,
    ReportQuery,
    ReportSubject,
    SlotUse,
    SlotWeight,
    TimeDivided,
)
from ds01d.model.primitives import (  # noqa: E402
    Boot,
    ContainerName,
    Now,
    SlotId,
    UserName,
    Wall,
)

DAYS, BOOKINGS, USERS = 365, 1000, 60
DAY_S, HOUR_S = 86_400.0, 3600.0
BEGIN = 1_767_225_600.0  # 2026-01-01
TIMES = 3


def at(seconds: float) -> Now:
    return Now(wall=Wall(BEGIN + seconds), boot=Boot(seconds), boot_id="boot")


def make_day(day: int, chance: random.Random) -> Iterator[AccountingChange]:
    """The bookings of a day: 1.3 hours each, so that the slots are taken nearly all the time."""
    for number in range(BOOKINGS):
        id_, begin = day * BOOKINGS + number + 1, day * DAY_S + number * DAY_S / BOOKINGS
        end = begin + chance.expovariate(1 / 4800)
        yield BookingBegun(
            id=id_,
            container=ContainerName(f"train{number}._.{1000 + number % USERS}"),
            user=UserName(f"user{number % USERS}"),
            slot=SlotId(f"{number % 8}.{number // 8 % 7}"),
            weight=SlotWeight(profile="1g.5gb", gpus=1 / 7),
            at=at(begin),
        )
        start = begin
        while start < end:
            stop = min((start // HOUR_S + 1) * HOUR_S, end)
            seconds = {SlotUse.USED: (stop - start) * 0.6, SlotUse.IDLE: (stop - start) * 0.3}
            hour = int((BEGIN + start) // HOUR_S)
            yield TimeDivided(id=id_, hour=hour, seconds=seconds)
            start = stop
        yield BookingEnded(id=id_, at=at(end), reason="released")


def make_year(folder: Path) -> None:
    store, chance = AccountingFile(folder, 3660), random.Random(1)  # noqa: S311 - a test's
    store.load()
    clock: list[AccountingChange] = [ClockSet(boot_id="boot", offset=BEGIN, step_s=0.0)]
    for day in range(DAYS):
        progress = AccountingProgress(
            observed=at((day + 1) * DAY_S), complete_since=Wall(BEGIN), sampled_since=Wall(BEGIN)
        )
        store.save([*clock, *make_day(day, chance)], progress, (day + 1) * BOOKINGS + 1)
        clock = []
    store.close()


def measure(act: Callable[[], object]) -> str:
    """The least wall-clock and processor time of it, children included."""
    best = []
    for _ in range(TIMES):
        wall, used = time.monotonic(), _processor_s()
        act()
        best.append((time.monotonic() - wall, _processor_s() - used))
    return f"{min(w for w, _ in best):6.2f} s, processor {min(p for _, p in best):6.2f} s"


def _processor_s() -> float:
    parts = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, parts))


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make_year(folder)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
        sys.stdout.write(f"{DAYS * BOOKINGS:,} bookings, {size:.0f} MiB\n")
        queries = {
            "a year by user": ReportQuery(since=Wall(BEGIN), until=Wall(BEGIN + DAYS * DAY_S)),
            "a year by slot, cut at both ends": ReportQuery(
                since=Wall(BEGIN + 1800), until=Wall(BEGIN + 364.5 * DAY_S), by=ReportSubject.SLOT
            ),
            "a year of one user": ReportQuery(
                since=Wall(BEGIN), until=Wall(BEGIN + DAYS * DAY_S), user=UserName("user3")
            ),
            "a month by user": ReportQuery(
                since=Wall(BEGIN + 300 * DAY_S), until=Wall(BEGIN + 330 * DAY_S)
            ),
        }

        def read(query: ReportQuery) -> None:
            with open_reader(folder) as reader:
                assert reader is not None
                build_usage_report(reader, query, lambda _: "")

        for name, query in queries.items():
            figure = measure(lambda query=query: read(query))  # type: ignore[misc]
            sys.stdout.write(f"{name:40} {figure}\n")
        config = folder / "ds01d.toml"
        config.write_text(
            f'daemon.state_dir = "{folder}"\nbooks.limits = "{folder}/limits.yaml"\n'
            'service.socket = ""\n',
            encoding="utf-8",
        )
        command = [
            *(sys.executable, "-m", "ds01d.cli.ctl.main", "report"),
            *("--since", "2026-01-01", "--until", "2027-01-01"),
        ]
        env = os.environ | {"DS01D_CONFIG": str(config), "PYTHONPATH": str(ROOT)}

        def call() -> None:
            subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)

        sys.stdout.write(f"{'ds01ctl report of the year':40} {measure(call)}\n")


if __name__ == "__main__":
    main()
