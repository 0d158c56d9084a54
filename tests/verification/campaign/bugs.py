"""Fourteen bugs, planted one at a time in a copy of the tree; the oracle has to catch each.

    make soak-bugs                 all of them (a minute or two each); ARGS=pause: those so named

The program itself has no switch for any of them. Each is given a profile, the mix of operations and
faults under which it would show, and the same mix has to pass without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.verification.campaign.profiles import PROFILES
from tests.verification.mutations import MUTATIONS, ROOT, Mutation, mutated, say

MINUTES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A bug by the name it has among people, what plants it, and where it shows."""

    name: str
    edits: tuple[Mutation, ...]
    profile: str


def _known(name: str) -> Mutation:
    return next(one for one in MUTATIONS if one.name == name)


def _edit(file: str, old: str, new: str) -> Mutation:
    return Mutation(invariant=0, name=file, file=file, old=old, new=new, tests=())


BUGS = (
    Bug(
        name="skip the 404 proof",
        edits=(_known("no inspect right before the write"),),
        profile="old lists",
    ),
    Bug(
        name="treat an error as an empty list",
        edits=(
            _edit(
                "ds01d/adapters/docker/engine.py",
                '        rows = read_rows(self._client.get("/containers/json", {"all": "1"}))\n',
                "        try:\n"
                '            rows = read_rows(self._client.get("/containers/json", {"all": "1"}))\n'
                "        except (EngineFailed, Malformed):\n"
                "            rows = []\n",
            ),
            _edit(
                "ds01d/adapters/docker/engine.py",
                "            except (EngineFailed, Malformed) as error:\n"
                "                return self._make_unknown(error)\n",
                "            except (EngineFailed, Malformed):\n"
                "                return NotFound()\n",
            ),
        ),
        profile="errors",
    ),
    Bug(name="no creation grace", edits=(_known("a creation has no grace"),), profile="creations"),
    Bug(
        name="non-atomic write",
        edits=(
            _edit(
                "ds01d/adapters/files/atomic_write.py",
                "            os.rename(temporary, path.name, src_dir_fd=fd, dst_dir_fd=fd)\n",
                "            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC\n"
                "            there = os.open(path.name, flags, 0o644, dir_fd=fd)\n"
                "            os.write(there, data)\n"
                "            os.close(there)\n",
            ),
        ),
        profile="writers",
    ),
    Bug(name="no lock", edits=(_known("the lock locks nothing"),), profile="locks"),
    Bug(
        name="trust the label",
        edits=(
            _edit(
                "ds01d/adapters/docker/parsing.py",
                "        request=read_request(\n"
                "            answer.host_config,\n"
                "            answer.config.env or (),\n"
                "            default_runtime=default_runtime,\n"
                "            nvidia_runtimes=nvidia_runtimes,\n"
                "            mounts=answer.mounts or (),\n"
                "        ),\n",
                "        request=read_request(\n"
                "            HostConfig(runtime='nvidia'),\n"
                "            ['NVIDIA_VISIBLE_DEVICES='\n"
                "             + (answer.config.labels or {}).get('aime.mlc.GPUS', 'none')],\n"
                "            default_runtime=default_runtime,\n"
                "        ),\n",
            ),
        ),
        profile="labels",
    ),
    Bug(name="release paused", edits=(_known("a paused container is stopped"),), profile="pauses"),
    Bug(
        name="follow the MIG index",
        edits=(
            _edit(
                "ds01d/decide/slot_table.py",
                "    return slot.uuid or remembered.get(slot.id)"
                " or at.get((slot.gpu_index, slot.mig_index))\n",
                "    return at.get((slot.gpu_index, slot.mig_index)) or slot.uuid\n",
            ),
        ),
        profile="layouts",
    ),
    Bug(
        name="take a rename for an absence",
        edits=(
            _edit(
                "ds01d/decide/renames.py",
                " is not None and container.name != name\n    }",
                " is not None and container.name == ''\n    }",
            ),
        ),
        profile="renames",
    ),
    Bug(
        name="mix wall clock and boot time",
        edits=(
            _edit(
                "ds01d/adapters/host/clocks.py",
                "    return Boot(time.clock_gettime(time.CLOCK_BOOTTIME))\n",
                "    return Boot(time.time())\n",
            ),
        ),
        profile="clocks",
    ),
    Bug(
        name="trust a pid of 0",
        edits=(
            _edit(
                "ds01d/adapters/nvml/reading_checks.py",
                "        if not 0 < use.pid <= pid_max:\n",
                "        if use.pid < 0:\n",
            ),
            _edit(
                "ds01d/adapters/nvml/inventory.py",
                "            process = processes.get(use.pid) or Process(\n",
                "            if use.pid not in processes:\n"
                "                continue\n"
                "            process = processes.get(use.pid) or Process(\n",
            ),
        ),
        profile="pids",
    ),
    Bug(
        name="treat an unknown cgroup as the host's",
        edits=(
            _edit(
                "ds01d/adapters/host/cgroup_paths.py",
                " if place is _IdPosition.UNDERSTOOD else _make_unknown(container_id)\n",
                " if place is _IdPosition.UNDERSTOOD else None\n",
            ),
        ),
        profile="cgroups",
    ),
    Bug(
        name="open a folder by path",
        edits=(
            _edit(
                "ds01d/folders.py",
                "    place = _open_last(path, service)\n    try:\n",
                "    place = os.open(path, os.O_RDONLY | os.O_CLOEXEC)\n    try:\n",
            ),
        ),
        profile="links",
    ),
    Bug(
        name="take one GPU's error for the host's",
        edits=(
            _edit(
                "ds01d/adapters/nvml/worker.py",
                "    if isinstance(error, pynvml.NVMLError) and error.value in _DRIVER_FAILED:\n",
                "    if isinstance(error, pynvml.NVMLError):\n",
            ),
        ),
        profile="sick",
    ),
)


def main(words: Sequence[str] | None = None) -> int:
    """Plant each; how many were not caught."""
    parser = argparse.ArgumentParser(prog="make soak-bugs", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--clean", action="store_true", help="the same mixes without a bug, too")
    parser.add_argument("names", nargs="*", help="only bugs whose names have one of these words")
    arguments = parser.parse_args(words)
    chosen = [
        bug
        for bug in BUGS
        if not arguments.names or any(word in bug.name for word in arguments.names)
    ]
    escaped = 0
    say("| planted bug | profile | caught as | after |", "|---|---|---|---|")
    with copy_tree() as tree:
        for bug in chosen:
            if arguments.clean and (found := run(tree, bug, arguments.seed, arguments.minutes)[0]):
                say(f"| (none) | {bug.profile} | {', '.join(found)} | |")
                escaped += 1
            with planted(bug, tree):
                found, seconds = run(tree, bug, arguments.seed, arguments.minutes)
            escaped += not found
            caught = ", ".join(found) or "NOT CAUGHT"
            say(f"| {bug.name} | {bug.profile} | {caught} | {seconds:.0f} s |")
    return escaped


def run(tree: Path, bug: Bug, seed: int, minutes: float) -> tuple[list[str], float]:
    """A campaign in a tree, until something is found: what, and after how long."""
    assert bug.profile in PROFILES
    command = [sys.executable, "-m", "tests.verification.campaign.run", "--stop-early"]
    command += ["--seed", str(seed), "--minutes", str(minutes), "--profile", bug.profile]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["DS01_CAMPAIGN_ROOT"] = str(tree)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ds01-bug-") as keep:
        done = subprocess.run(
            [*command, "--keep", keep],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("VIOLATION ")]
    kinds = dict.fromkeys(line.removeprefix("VIOLATION ").partition(":")[0] for line in lines)
    if bool(done.returncode) is not bool(kinds):
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return list(kinds), time.monotonic() - began


@contextmanager
def planted(bug: Bug, tree: Path) -> Iterator[None]:
    """Plant a bug in a copy of the tree, for a while."""
    try:
        for edit in bug.edits:
            source = mutated(edit, tree)
            (tree / edit.file).write_text(source, encoding="utf-8")
        yield
    finally:
        for edit in bug.edits:
            shutil.copy2(ROOT / edit.file, tree / edit.file)


@contextmanager
def copy_tree() -> Iterator[Path]:
    """The tree, with what was compiled for it."""
    skip = shutil.ignore_patterns(
        ".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "bench"
    )
    with tempfile.TemporaryDirectory(prefix="ds01d-bugs-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=skip, symlinks=True)
        yield tree


if __name__ == "__main__":
    sys.exit(min(main(), 1))
