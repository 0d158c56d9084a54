"""Books on an overlay's lower layer, and a state that is mounted by itself; on real mounts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")

STATE = {
    "gpus": {
        slot: {"type": "mig_instance", "containers": names, "users": {}, "uuid": f"MIG-{slot}"}
        for slot, names in (("1.0", ["alice._.1001", "bob._.1002"]), ("1.1", []))
    },
    "mig_enabled": True,
    "note": "an unknown field",
}
PROGRAM = """
import json, os, subprocess, sys
from dataclasses import replace
from pathlib import Path
from ds01d.adapters.books.state_file import StateFile
from ds01d.adapters.books.metadata_dir import MetadataDirectory
from ds01d.model.primitives import ContainerName
from ds01d.model.books import AllocatorState

root = Path(sys.argv[1])

def mount(*words):
    subprocess.run(("mount", *map(str, words)), check=True)

def book(folder):
    (root / "kept").mkdir(exist_ok=True)
    return StateFile(folder / "gpu-state.json", root / "kept", 5.0)

def release(one, name):
    state = one.read()
    assert isinstance(state, AllocatorState), state
    with one.lock():
        return one.write(without(state, name), onto=state.digest)

def without(state, name):
    slots = {i: replace(s, containers=tuple(n for n in s.containers if n != name))
             for i, s in state.slots.items()}
    return replace(state, slots=slots)

def names(folder):
    return json.loads((folder / "gpu-state.json").read_text())["gpus"]["1.0"]["containers"]
"""


def mounted(program: str, tmp_path: Path, *arguments: object) -> Any:
    """Run a program with mounts of its own, which end with it; gives what it printed, as JSON."""
    command = ("unshare", "--mount", "--propagation", "private", sys.executable, "-B", "-c")
    done = subprocess.run(
        [*command, PROGRAM + program, str(tmp_path), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def put_books(folder: Path) -> None:
    (folder / "container-metadata").mkdir(parents=True)
    (folder / "gpu-state.json").write_text(json.dumps(STATE, indent=2))
    record = {"container": "alice._.1001", "user": "alice", "gpu_id": "1.0"}
    (folder / "container-metadata" / "alice._.1001.json").write_text(json.dumps(record))


OVERLAY = """
for name in ("upper", "merged"):
    (root / name).mkdir()
mount("-t", "tmpfs", "none", root / "upper")
for name in ("up", "work"):
    (root / "upper" / name).mkdir()
layers = f"lowerdir={root / 'lower'},upperdir={root / 'upper/up'},workdir={root / 'upper/work'}"
mount("-t", "overlay", "overlay", "-o", layers, root / "merged")
one, records = book(root / "merged"), MetadataDirectory(root / "merged/container-metadata", root)
name = ContainerName("alice._.1001")
before = records.read()[name]
written = release(one, "alice._.1001")
records.remove(name, onto=before.digest)
left = names(root / "merged")
late = sorted(path.name for path in (root / "merged").glob(".*replaced-*"))
release(one, "bob._.1002")
print(json.dumps([left, names(root / "merged"), len(late),
                  [str(p) for p in (root / "merged/container-metadata").iterdir()]]))
"""


def test_books_on_the_lower_layer_of_an_overlay_can_be_written(tmp_path: Path) -> None:
    put_books(tmp_path / "lower")
    first, second, links, records = mounted(OVERLAY, tmp_path)
    assert first == ["bob._.1002"]
    assert second == []
    assert links == 2, "the old file stays linked, beside what was read in it"
    assert records == []
    assert json.loads((tmp_path / "lower" / "gpu-state.json").read_text()) == STATE


BIND = """
state = root / "merged" / "gpu-state.json"
state.parent.mkdir()
state.touch()
mount("--bind", root / "books" / "gpu-state.json", state)
one = book(state.parent)
release(one, "alice._.1001")
inode = (root / "books" / "gpu-state.json").stat().st_ino
left = names(root / "merged")
release(one, "bob._.1002")
again = one.read()
print(json.dumps([left, names(root / "books"), again.merge == frozenset(),
    inode == (root / "books" / "gpu-state.json").stat().st_ino,
    sorted(p.name for p in state.parent.iterdir())]))
"""


def test_a_state_that_is_mounted_by_itself_is_written_in_place(tmp_path: Path) -> None:
    """As a container that runs ds01d gets it: --volume FILE:FILE. rename(2) says EBUSY."""
    put_books(tmp_path / "books")
    inode = (tmp_path / "books" / "gpu-state.json").stat().st_ino
    first, second, none_to_merge, same, there = mounted(BIND, tmp_path)
    assert first == ["bob._.1002"]
    assert second == []
    assert none_to_merge
    assert same
    assert inode == (tmp_path / "books" / "gpu-state.json").stat().st_ino
    assert there == ["gpu-state.json", "gpu-state.json.lock"], "nothing is left beside it"
    written = json.loads((tmp_path / "books" / "gpu-state.json").read_text())
    assert written["note"] == "an unknown field"
    assert json.loads((tmp_path / "kept" / "gpu-state.last-good.json").read_text()) == written
