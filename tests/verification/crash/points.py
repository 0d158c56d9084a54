"""Every crash point of every kind of change: what a kill there leaves behind, and what follows.

    make crash-points                 all of them, with a line for each change
    make crash-points ARGS=undo       only the changes named so

Prints how many points there are and how many are inconsistent; exits with 1 if one is. The points
are before and after each call that changes a file, and in the midst of each write.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import msgspec

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
from tests.verification.crash.stepping import Call, Stepper, environment

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
    stepper: Stepper
    saved: Path

    def run(self) -> Found:
        scene, disk = self.scene, self.scene.disk
        scene.before, scene.known = disk.books(), frozenset(e["id"] for e in begun(disk))
        calls, points = self._follow()
        scene.after = disk.books()
        clock = self._clock()
        quiet(disk)
        scene.rest = rest(disk)
        wrong = [f"power: {what}" for what in unsynced(calls, disk)]
        judged: dict[Path, list[str]] = {}
        for where, copy in points:
            if copy not in judged:
                self._restart(clock, copy)
                judged[copy] = self._judge()
            wrong += [f"{where}: {what}" for what in judged[copy]]
        return Found(scene.name, len(calls), len(points), wrong)

    def _follow(self) -> tuple[list[Call], list[tuple[str, Path]]]:
        """Make the change. Its calls, and each point with a copy of the disk as it was there."""
        calls: list[Call] = []
        points: list[tuple[str, Path]] = []
        for moment, call in self.stepper.steps(self.scene.act):
            if moment == "before":
                calls.append(call)
            where = f"{moment} call {len(calls)}, {_describe(call, self.scene.disk.root)}"
            points.append((where, self._save()))
        points.append(("after the last call", self._save()))
        return calls, points

    def _save(self) -> Path:
        copy = self.saved / self.scene.disk.fingerprint()
        if not copy.exists():
            self.scene.disk.save(copy)
        return copy

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

    def _restart(self, clock: tuple[float, float], copy: Path) -> None:
        host = self.scene.disk.life.host
        host.wall, host.boot = clock
        self.scene.disk.restore(copy)
        host.pass_time(0.01)  # as long as a restart takes, at least


def _describe(call: Call, root: Path) -> str:
    paths = [path.removeprefix(f"{root}/") for path in call[1:] if path]
    return f"{call.name} {' '.join(paths)}"


def scenes(root: Path, words: Sequence[str]) -> Iterator[Unbuilt]:
    if "planted" in words:
        yield from planted(root)
        return
    for name, build in chain(repairs(root), undos(root), others(root)):
        if not words or any(word in name for word in words):
            yield name, build


def enumerate_all(words: Sequence[str], part: int, parts: int) -> Iterator[Found]:
    """Each change that is named so; of several parts, one."""
    stepper = Stepper()
    folder = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ds01d-crash-", dir=folder) as made:
        root = Path(made)
        for _, build in islice(scenes(root, words), part, None, parts):
            scene = build()
            saved = root / "saved"
            saved.mkdir()
            yield _Enumeration(scene, stepper, saved).run()
            shutil.rmtree(saved)
            shutil.rmtree(scene.disk.root)


def run(words: Sequence[str] = (), parts: Sequence[int] = (0, 1), of: int = 2) -> list[Found]:
    """These of so many parts, each in a process in which the library is loaded."""
    command = [sys.executable, "-m", "tests.verification.crash.points", "--part"]
    env = {**environment(), "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [*command, f"{part}/{of}", *words], env=env, cwd=ROOT, stdout=subprocess.PIPE
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
        for found in enumerate_all(words[2:], int(part), int(parts)):
            out.write(msgspec.json.encode(found).decode() + "\n")
            out.flush()
        return 0
    all_found = run(words)
    for one in all_found:
        out.write(f"{one.name:40} {one.calls:4} calls {one.points:5} points {len(one.wrong):3}\n")
        for what in one.wrong[:5]:
            out.write(f"    {what}\n")
    out.write(f"{summary(all_found)}\n")
    return 1 if not all_found or any(one.wrong for one in all_found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
