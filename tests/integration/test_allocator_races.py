"""Many allocators at once, alone and beside the running daemon: nothing is lost, torn or orphaned.

DS01D_RACE_ROUNDS sets how many rounds of random operations there are (20 before a release).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from simulation.fake_engine import FakeEngine
from tests.support import forked
from tests.support.allocator import AllocatorSite
from tests.support.daemon import ROOT, RunningDaemon

ROUNDS = int(os.environ.get("DS01D_RACE_ROUNDS", "2"))
PROCESSES, OPERATIONS = 6, 15
NAMES = [f"job{number}._.{1001 + number % 3}" for number in range(10)]
OLD = "2026-01-01T08:00:00.000000"

OPERATE = """
import json, random, sys
from ds01d.bootstrap_books import open_allocator
from ds01d.config_file import load_config
from ds01d.model.allocation import Allocated, MarkedStopped, Released
from pathlib import Path

config, seed, operations, names = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
random = random.Random(seed)
config = load_config(config, {})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(operations):
    name = random.choice(names)
    user = f"user{name[-1]}"
    with open_allocator(config) as allocator:
        match random.choice(["allocate", "allocate", "release", "mark-stopped"]):
            case "allocate":
                answer = allocator.allocate(user, name, 4, 10)
                done = isinstance(answer, Allocated) and not answer.already
            case "release":
                answer = allocator.release(name)
                done = isinstance(answer, Released)
            case _:
                answer = allocator.mark_stopped(name)
                done = False
    if done:
        print(json.dumps([type(answer).__name__, name]), flush=True)
"""


def a_site(folder: Path, **options: Any) -> AllocatorSite:
    """Empty books. Nobody gives up waiting for the others, however slow they are today."""
    site = AllocatorSite(folder, "v3-dcce6c2-prod4", **options)
    site.configure(books={"lock_timeout": "50s"})
    return site


@contextmanager
def watched(site: AllocatorSite) -> Iterator[list[str]]:
    """Read the books all the time; what made no sense is in the list at the end."""
    torn: list[str] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            for path in (site.state, *site.metadata.glob("*.json")):
                try:
                    json.loads(path.read_text(encoding="utf-8"))
                except FileNotFoundError:  # noqa: PERF203 - it was released
                    continue
                except ValueError as error:
                    torn.append(f"{path.name}: {error}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield torn
    finally:
        over.set()
        reader.join()


def operate(site: AllocatorSite, number: int) -> list[tuple[str, ...]]:
    """One round: what each process did successfully."""
    racers = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", OPERATE, str(site.config)),
                *(f"{number}-{racer}", str(OPERATIONS), *NAMES),
            ],
            env=site.environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for racer in range(PROCESSES)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=250)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    return [tuple(json.loads(line)) for printed in said for line in printed.splitlines()]


def consistent(site: AllocatorSite) -> None:
    """State and metadata agree with each other, counters and all."""
    assert site.orphans() == set()
    records = site.metadata_of()
    for name, slot in site.gpus().items():
        assert len(slot["containers"]) == len(set(slot["containers"]))
        owners = Counter(records[one]["user"] for one in slot["containers"])
        assert slot["users"] == dict(owners), (name, slot)
        assert all(records[one]["gpu_id"] == name for one in slot["containers"])


def race(site: AllocatorSite, rounds: int) -> None:
    """Rounds of random operations: what was done is exactly what is left."""
    balance: Counter[str] = Counter()
    with watched(site) as torn:
        for number in range(rounds):
            for what, name in operate(site, number):
                balance[name] += 1 if what == "Allocated" else -1
    booked = Counter(name for name, _ in site.bookings() if name in NAMES)
    assert torn == []
    assert +balance == booked  # a lost update is a booking more or less than was told
    assert all(count in {0, 1} for count in balance.values())
    consistent(site)
    events = Counter(line.split("|")[1] for line in site.allocations.read_text().splitlines())
    assert events["ALLOCATED"] - events["RELEASED"] == sum(booked.values())


@pytest.mark.timeout(600)
def test_random_operations_of_six_processes(tmp_path: Path) -> None:
    race(a_site(tmp_path), ROUNDS)


@pytest.mark.timeout(600)
def test_random_operations_beside_the_daemon(tmp_path: Path, fake_engine: FakeEngine) -> None:
    """It releases four stale bookings meanwhile, and touches nothing else."""
    site = a_site(
        tmp_path,
        url=fake_engine.url,
        daemon={"sweep_interval": "1s"},
        docker={"timeout": "900ms"},
        gpu={"source": "none", "timeout": "900ms"},
        policy={"creation_grace": "15m"},
    )
    fake_engine.data_root = str(tmp_path)
    stale = [f"stale{number}._.1009" for number in range(4)]
    for name, slot in zip(stale, site.gpus(), strict=False):
        site.allocator.allocate(name, "user9", slot)
        path = site.metadata / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"allocated_at": OLD}))
    site.allocations.unlink()
    balance: Counter[str] = Counter()
    with RunningDaemon(site) as daemon, watched(site) as torn:
        for number in range(ROUNDS):
            for what, name in operate(site, number):
                balance[name] += 1 if what == "Allocated" else -1
        daemon.booked(*(pair for pair in site.bookings() if pair[0] not in stale))
        daemon.at_rest()
        taken = {name for name, _ in site.taken()}
    assert torn == []
    assert taken == set(stale)
    assert +balance == Counter(name for name, _ in site.bookings())
    consistent(site)


def at_once(site: AllocatorSite, calls: Sequence[Sequence[str]]) -> list[str]:
    """Several calls at the same time: what each printed."""
    done = forked.call_at_once(
        "ds01d.cli.allocator.main", calls, env=site.environment(), timeout_s=250
    )
    assert [one.returncode for one in done] == [0] * len(calls)
    return [one.stdout for one in done]


def test_twenty_releases_of_one_container(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    site.run("allocate", "alice", "one._.1001", "9", "10")
    said = Counter(at_once(site, [["release", "one._.1001"]] * 20))
    assert said == {
        "✓ Released GPU/MIG 1.0 from one._.1001\n": 1,
        "✗ No GPU allocated to one._.1001\n": 19,
    }
    assert site.bookings() == set()
    consistent(site)


def test_twenty_releases_of_twenty_containers(tmp_path: Path) -> None:
    site = a_site(tmp_path)
    names = [f"one{number}._.1001" for number in range(20)]

    def book(state: dict[str, Any]) -> None:
        for number, name in enumerate(names):
            slot = list(state["gpus"].values())[number % 12]
            slot["containers"].append(name)
            slot["users"]["alice"] = slot["users"].get("alice", 0) + 1

    site.write_state(book)
    for name in names:
        record = {"container": name, "user": "alice", "gpu_id": "1.0", "priority": 10}
        (site.metadata / f"{name}.json").write_text(json.dumps(record | {"allocated_at": OLD}))
    said = at_once(site, [["release", name] for name in names])
    assert all(line.startswith("✓ Released GPU/MIG ") for line in said)
    assert site.bookings() == set()
    assert all(slot["users"] == {} for slot in site.gpus().values())
    consistent(site)


def test_a_slot_is_never_given_to_two_while_another_is_free(tmp_path: Path) -> None:
    site = a_site(tmp_path, allocator={"sharing": "never"})
    calls = [["allocate", "alice", f"job{number}._.1001", "99", "10"] for number in range(15)]
    said = at_once(site, calls)
    assert sum(line.startswith("✓ Allocated") for line in said) == 12
    assert sum(line.startswith("✗ Allocation failed: NO_GPU_AVAILABLE") for line in said) == 3
    assert all(len(slot["containers"]) == 1 for slot in site.gpus().values())
    consistent(site)
