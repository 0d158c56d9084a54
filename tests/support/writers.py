"""Programs that write the state beside ds01d, each in a process of its own, and what they did.

The unlocked ones do as the allocator does: read, change, open for writing (which truncates), dump,
close. They note for every write what they added and removed, when they read, when they wrote, and
into which inode; `lost` tells from all notes what the writers did not lose themselves. They write
no metadata: from that ds01d would find again what it had lost.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.support.scripts import start

UNLOCKED = """
import hashlib, json, os, random, sys, time

state, metadata, notes, stop, who, size, pause = sys.argv[1:8]
who, size, pause = int(who), int(size), float(pause)
chance = random.Random(who)
user = f"user{1000 + who}"
made = 0

def wait(seconds):
    time.sleep(chance.uniform(0, seconds))

def record(name):
    return os.path.join(metadata, f"{name}.json")

def allocate(slot, name):
    slot["containers"].append(name)
    slot["users"][user] = slot["users"].get(user, 0) + 1

def release(slot, name):
    slot["containers"].remove(name)
    slot["users"][user] = slot["users"].get(user, 1) - 1
    if slot["users"][user] <= 0:
        del slot["users"][user]

with open(notes, "w") as out:
    while not os.path.exists(stop):
        read = time.monotonic()
        try:
            with open(state) as file:
                document = json.load(file)
        except (ValueError, FileNotFoundError):
            wait(pause / 4)
            continue
        slots = document["gpus"]
        mine = [(s, n) for s in slots for n in slots[s]["containers"] if n.startswith(f"w{who}n")]
        added, removed = [], []
        if len(mine) < 3:
            made += 1
            name = f"w{who}n{made}._.{1000 + who}"
            at = chance.choice(sorted(slots))
            allocate(slots[at], name)
            added.append(name)
        else:
            at, name = chance.choice(mine)
            release(slots[at], name)
            removed.append(name)
        wait(pause / 10)
        text = json.dumps(document, indent=2).ljust(size)
        begun = time.monotonic()
        with open(state, "w") as file:
            inode = os.fstat(file.fileno()).st_ino
            wait(pause / 10)
            if len(text) <= size:
                file.write(text)
            else:
                for at_char in range(0, len(text), 4096):  # a long one goes out piece by piece
                    file.write(text[at_char:at_char + 4096])
                    file.flush()
                    wait(pause / 40)
        done = time.monotonic()
        try:
            late = os.stat(state).st_ino != inode
        except FileNotFoundError:
            late = True
        names = sorted({n for s in slots.values() for n in s["containers"]})
        note = dict(who=who, read=read, begun=begun, done=done, inode=inode, late=late, added=added,
                    removed=removed, names=names, digest=hashlib.sha256(text.encode()).hexdigest())
        out.write(json.dumps(note) + "\\n")
        out.flush()
        if removed and os.path.exists(record(name)):
            os.unlink(record(name))
        wait(2 * pause)
"""

LOCKED = """
import sys
from dataclasses import replace
from pathlib import Path
from ds01d.adapters.books.state_file import StateFile

path, keep, who, count = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
file = StateFile(path, keep, 30.0)
for number in range(count):
    with file.lock():
        state = file.read()
        slot = state.slots["1.0"]
        more = replace(slot, containers=(*slot.containers, f"{who}{number}._.1001"))
        file.write(replace(state, slots={**state.slots, "1.0": more}), onto=state.digest)
"""

SHELL = r"""
lock=$1.lock
for number in $(seq "$2"); do
    flock "$lock" python3 -c '
import json, sys
with open(sys.argv[1]) as file:
    state = json.load(file)
state["gpus"]["1.1"]["containers"].append(sys.argv[2])
with open(sys.argv[1], "w") as file:
    json.dump(state, file, indent=2)
' "$1" "shell$number._.1001"
done
"""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One write of an unlocked writer. Moments on CLOCK_MONOTONIC; `late`: into a replaced file."""

    who: int
    read: float
    begun: float
    done: float
    inode: int
    late: bool
    added: list[str]
    removed: list[str]
    names: frozenset[str]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OurWrite:
    """One write of ds01d."""

    begun: float
    done: float
    names: frozenset[str]
    digest: str


@contextmanager
def unlocked_writers(
    count: int, state: Path, metadata: Path, folder: Path, *, size: int, pause_s: float = 0.02
) -> Iterator[None]:
    """Run so many writers; a document is filled up with blanks to `size`, or goes out in pieces."""
    folder.mkdir(exist_ok=True)
    stop = folder / "stop"
    running: list[subprocess.Popen[str]] = []
    try:
        for who in range(1, count + 1):
            notes = folder / f"notes-{who}"
            running.append(start(UNLOCKED, state, metadata, notes, stop, who, size, pause_s))
        yield
    finally:
        stop.touch()
        for process in running:
            process.communicate(timeout=60)
    assert [process.returncode for process in running] == [0] * count


def notes_in(folder: Path) -> list[Note]:
    """All that the writers have noted by now, in the order in which they were done."""
    texts = [path.read_bytes().rpartition(b"\n")[0] for path in folder.glob("notes-*")]
    lines = [line for text in texts for line in text.splitlines()]
    return sorted((msgspec.json.decode(line, type=Note) for line in lines), key=lambda n: n.done)


def lost(notes: Sequence[Note], ours: Sequence[OurWrite], final: Iterable[str]) -> list[str]:
    """Bookings that a writer made, that nobody but ds01d can have lost, and that are not there."""
    there = set(final)
    removed = {name for note in notes for name in note.removed}
    return [
        name
        for note in notes
        for name in note.added
        if name not in there and name not in removed and not _overwritten(name, note, notes, ours)
    ]


def _overwritten(name: str, note: Note, notes: Sequence[Note], ours: Sequence[OurWrite]) -> bool:
    """Whether another writer, who had read the state without `name`, wrote over it.

    Over the very file it was written to; or over one of ds01d's that had it.
    """
    kept = [write for write in ours if name in write.names and write.done > note.begun]
    for other in notes:
        if name in other.names or other is note or other.done < note.begun:
            continue
        if other.inode == note.inode and other.read < note.done:
            return True
        if any(other.read < write.done and other.done > write.begun for write in kept):
            return True
    return False
