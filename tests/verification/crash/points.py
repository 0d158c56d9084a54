"""Every crash point of every kind of change: kill there, look, go on, look again.

    make crash-points                 all of them, with a line for each change
    make crash-points ARGS=undo       only the changes named so

Prints how many points there are and how many are inconsistent; exits with 1 if one is. A process
dies before and after each call that changes a file, and in the midst of each write. The tests leave
out what finds the disk as the point before: "after" is before the next, a sync changes no byte.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import msgspec

from tests.verification.crash.killing import AFTER, BEFORE, HALF, Call, Victim, environment
from tests.verification.crash.power import unsynced
from tests.verification.crash.scenes import (
    Scene,
    Unbuilt,
    begun,
    others,
    planted,
    quiet,
    repairs,
    rest,
    undos,
)

ROOT = Path(__file__).parents[3]
MEMORY = Path("/dev/shm")


class Found(msgspec.Struct):
    """What came of one change: how many calls and points, and what was wrong, in words."""

    name: str
    calls: int
    points: int
    wrong: list[str]


@dataclass
class _Enumeration:
    """One change, at all its points. Disks that are alike are judged once."""

    scene: Scene
    victim: Victim
    saved: Path
    brief: bool

    def run(self) -> Found:
        scene, disk = self.scene, self.scene.disk
        disk.save(self.saved)
        scene.before, scene.known = disk.books(), frozenset(e["id"] for e in begun(disk))
        calls = self.victim.calls(scene.act)
        scene.after = disk.books()
        clock = self._clock()
        quiet(disk)
        scene.rest = rest(disk)
        wrong = [f"power: {what}" for what in unsynced(calls, disk)]
        judged: dict[str, list[str]] = {}
        points = 0
        for number, call in enumerate(calls, start=1):
            for when in self._moments(calls, number):
                self._restart(clock)
                other = self.victim.dies(scene.act, number, when)
                if other is not None:
                    wrong.append(f"call {number} was not made: {_compare(calls, other, disk.root)}")
                    continue
                disk.life.host.pass_time(0.01)  # as long as a restart takes, at least
                points += 1
                seen = disk.fingerprint()
                if seen not in judged:
                    judged[seen] = self._judge()
                where = f"{when.decode()} call {number} of {len(calls)}, {_told(call, disk.root)}"
                wrong += [f"{where}: {what}" for what in judged[seen]]
        return Found(scene.name, len(calls), points, wrong)

    def _moments(self, calls: Sequence[Call], number: int) -> Iterator[bytes]:
        """When to die; in brief not where the disk is as it was at the point before."""
        before = calls[number - 2].name if number > 1 else ""
        if not self.brief or before not in ("fsync", "fdatasync", "fchown"):
            yield BEFORE
        if "write" in calls[number - 1].name:
            yield HALF
        if number == len(calls) or not self.brief:
            yield AFTER

    def _judge(self) -> list[str]:
        disk = self.scene.disk
        try:
            self.scene.judge(self.scene)
            disk.grow_old()
            disk.pass_()
            left = disk.left_over()
            assert not left, f"left behind for ever: {left}"
        except Exception as error:  # noqa: BLE001 - one more thing that is wrong
            return [f"{type(error).__name__}: {error}"[:2000]]
        return []

    def _clock(self) -> tuple[float, float]:
        host = self.scene.disk.life.host
        return host.wall, host.boot

    def _restart(self, clock: tuple[float, float]) -> None:
        host = self.scene.disk.life.host
        host.wall, host.boot = clock
        self.scene.disk.restore(self.saved)


def _told(call: Call, root: Path) -> str:
    paths = [path.removeprefix(f"{root}/") for path in call[1:] if path]
    return f"{call.name} {' '.join(paths)}"


def _compare(calls: Sequence[Call], other: Sequence[Call], root: Path) -> str:
    """Where the same change, made twice, changed files in another way."""
    random = re.compile("[0-9a-f]{8,}")
    once, twice = ([random.sub("*", _told(call, root)) for call in made] for made in (calls, other))
    return "\n".join(difflib.unified_diff(once, twice, "once", "twice", lineterm="", n=2))


def scenes(root: Path, words: Sequence[str]) -> Iterator[Unbuilt]:
    if "planted" in words:
        yield from planted(root)
        return
    for name, build in chain(repairs(root), undos(root), others(root)):
        if not words or any(word in name for word in words):
            yield name, build


def enumerate_all(words: Sequence[str], part: int, parts: int, *, brief: bool) -> Iterator[Found]:
    """Each change that is named so; of several parts, one."""
    victim = Victim()
    folder = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ds01d-crash-", dir=folder) as made:
        root = Path(made)
        for _, build in islice(scenes(root, words), part, None, parts):
            scene = build()
            yield _Enumeration(scene, victim, root / "saved", brief).run()
            shutil.rmtree(root / "saved")
            shutil.rmtree(scene.disk.root)


def run(
    words: Sequence[str] = (), parts: Sequence[int] = (0, 1), of: int = 2, *, brief: bool = True
) -> list[Found]:
    """These of so many parts, each in a process in which the library is loaded."""
    how = "brief" if brief else "all"
    command = [sys.executable, "-m", "tests.verification.crash.points", "--part"]
    env = {**environment(), "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [*command, f"{part}/{of}", how, *words], env=env, cwd=ROOT, stdout=subprocess.PIPE
        )
        for part in parts
    ]
    told = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("the enumeration itself failed; see above")
    found = (msgspec.json.decode(line, type=Found) for text in told for line in text.splitlines())
    return sorted(found, key=lambda one: one.name)


def summary(found: Sequence[Found]) -> str:
    calls, points = sum(one.calls for one in found), sum(one.points for one in found)
    wrong = sum(len(one.wrong) for one in found)
    return f"{len(found)} changes, {calls} calls, {points} crash points, {wrong} inconsistent"


def main(words: list[str]) -> int:
    out = sys.stdout
    if words[:1] == ["--part"]:
        part, _, parts = words[1].partition("/")
        brief = words[2] == "brief"
        for found in enumerate_all(words[3:], int(part), int(parts), brief=brief):
            out.write(msgspec.json.encode(found).decode() + "\n")
            out.flush()
        return 0
    all_found = run(words, brief=False)
    for one in all_found:
        out.write(f"{one.name:40} {one.calls:4} calls {one.points:5} points {len(one.wrong):3}\n")
        for what in one.wrong[:5]:
            out.write(f"    {what}\n")
    out.write(f"{summary(all_found)}\n")
    return 1 if not all_found or any(one.wrong for one in all_found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
