"""The state file: unknown is not empty, nothing is written onto what was not decided upon."""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ds01d.adapters.books.state_file import StateFile
from ds01d.adapters.files.safe_read import digest_of
from ds01d.errors import BooksChanged, LockTimeout, WriteFailed
from ds01d.model.books import MISSING, AllocatorState, Slot, Unreadable
from ds01d.model.primitives import ContainerName, SlotId, Source, Unknown
from ds01d.reconcile.books_ports import StateBook
from tests.support.samples import copy_sample
from tests.support.scripts import DIES_AT, output

PATIENCE_S = 30.0  # with a machine that has much else to do
SAMPLE = Path(__file__).parents[2] / "data/states/drift-seed/lib/gpu-state.json"
FIRST = SlotId("1.0")


class Lib:
    """A private /var/lib/ds01 with a state in it, and a folder for what is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lib"
        self.folder.mkdir()
        self.path = self.folder / "gpu-state.json"
        copy_sample(SAMPLE, self.path)
        self.keep = folder / "keep"
        self.book = StateFile(self.path, self.keep, 0.2)

    def read(self) -> AllocatorState:
        state = self.book.read()
        assert isinstance(state, AllocatorState)
        return state

    def write(self, state: AllocatorState) -> AllocatorState:
        with self.book.lock():
            return self.book.write(state, onto=state.digest)

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def lib(tmp_path: Path) -> Lib:
    return Lib(tmp_path)


def booked(state: AllocatorState, *names: str, slot: SlotId = FIRST) -> AllocatorState:
    """The same state with these containers in a slot."""
    changed = replace(state.slots[slot], containers=tuple(map(ContainerName, names)))
    return replace(state, slots={**state.slots, slot: changed})


def released(state: AllocatorState) -> AllocatorState:
    slots: dict[SlotId, Slot] = {
        name: replace(slot, containers=(), users={}) for name, slot in state.slots.items()
    }
    return replace(state, slots=slots)


def test_it_fits_the_port(lib: Lib) -> None:
    book: StateBook = lib.book
    assert isinstance(book.read(), AllocatorState)


# --- reading ----------------------------------------------------------------------------------


def test_reading_leaves_no_trace(lib: Lib) -> None:
    before = lib.path.stat()
    lib.read()
    assert lib.names() == {"gpu-state.json"}
    assert not lib.keep.exists()
    assert lib.path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_missing_file_is_unreadable_and_a_missing_folder_unknown(lib: Lib) -> None:
    lib.path.unlink()
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    assert state.digest == MISSING == "missing"
    assert state.last_good is None
    lib.folder.rmdir()
    gone = lib.book.read()
    assert isinstance(gone, Unknown)
    assert gone.source is Source.STATE
    assert "directory that does not exist" in gone.reason


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_what_is_no_ordinary_file_is_unknown(lib: Lib, kind: str) -> None:
    moved = lib.folder / "moved"
    lib.path.rename(moved)
    match kind:
        case "link":
            lib.path.symlink_to(moved)
        case "folder":
            lib.path.mkdir()
        case _:
            os.mkfifo(lib.path)
    state = lib.book.read()
    assert isinstance(state, Unknown)
    assert str(lib.path) in state.reason


def test_a_file_that_may_not_be_read_is_unknown(lib: Lib) -> None:
    lib.path.chmod(0)
    program = """
import os, sys
from pathlib import Path
from ds01d.adapters.books.state_file import StateFile
book = StateFile(Path(sys.argv[1]), Path("/nowhere"), 1.0)
if os.geteuid() == 0:
    os.seteuid(65534)
print(repr(book.read()))
"""
    assert output(program, lib.path).startswith("Unknown(")


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"gpus": {"1.0": {"containers": [7]}}}', b"\0" * 100]
)
def test_a_broken_file_is_unreadable_after_a_bounded_wait(lib: Lib, data: bytes) -> None:
    lib.path.write_bytes(data)
    began = time.monotonic()
    state = lib.book.read()
    assert time.monotonic() - began < PATIENCE_S
    assert isinstance(state, Unreadable)
    assert str(lib.path) in state.reason
    assert state.digest == digest_of(data)


def test_a_file_that_has_long_been_broken_is_not_waited_for_again(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib.path.write_bytes(b"{")
    monkeypatch.setattr("ds01d.adapters.files.safe_read.time.time_ns", lambda: 2**62)
    first = lib.book.read()
    # One look more tells that it is still the same.
    monkeypatch.setattr("ds01d.adapters.books.state_reader._SETTLE_S", 1e9)
    monkeypatch.setattr("ds01d.adapters.books.state_reader.time.sleep", lambda _s: None)
    assert lib.book.read() == first


def test_an_enormous_file_is_unreadable_and_known_by_its_outside(lib: Lib) -> None:
    with lib.path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    assert "more than" in state.reason
    assert state.digest.startswith("oversized:")


def test_a_torn_file_is_read_when_it_is_whole(lib: Lib, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lib.path.read_bytes()
    lib.path.write_bytes(whole[:1000])

    def finish(_seconds: float) -> None:
        lib.path.write_bytes(whole)

    monkeypatch.setattr("ds01d.adapters.books.state_reader.time.sleep", finish)
    assert lib.read().digest == digest_of(whole)


def test_a_file_that_never_comes_to_rest_is_unknown(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = 0

    def write_on(_seconds: float) -> None:
        nonlocal length
        length += 1
        lib.path.write_bytes(b"{" * length)

    monkeypatch.setattr("ds01d.adapters.books.state_reader.time.sleep", write_on)
    write_on(0)
    state = lib.book.read()
    assert isinstance(state, Unknown)
    assert "keeps changing" in state.reason


def test_one_slow_look_at_a_broken_file_is_no_writer(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, 60.0)  # seconds: each look takes a minute

    class Time:
        monotonic = staticmethod(lambda: next(clock))
        sleep = staticmethod(lambda _seconds: None)

    monkeypatch.setattr("ds01d.adapters.books.state_reader.time", Time)
    lib.path.write_bytes(b"{")
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    assert state.digest == digest_of(b"{")


# --- writing ----------------------------------------------------------------------------------


def test_what_is_written_is_in_the_file_and_the_rest_is_kept(lib: Lib) -> None:
    state = lib.read()
    now = lib.write(booked(state, "new._.1001"))
    assert now == lib.read()
    assert now.slots[FIRST].containers == ("new._.1001",)
    raw, old = json.loads(lib.path.read_bytes()), json.loads(SAMPLE.read_bytes())
    assert raw["gpus"].pop("1.0") != old["gpus"].pop("1.0")
    assert raw == old


def test_nothing_is_written_where_nothing_would_change(lib: Lib) -> None:
    state = lib.read()
    before = lib.path.stat()
    assert lib.write(state) == state
    assert lib.path.stat() == before
    assert lib.names() == {"gpu-state.json", "gpu-state.json.lock"}


def test_it_is_written_only_under_the_lock(lib: Lib) -> None:
    state = lib.read()
    with pytest.raises(RuntimeError, match="lock"):
        lib.book.write(state, onto=state.digest)
    with (
        lib.book.lock(),
        pytest.raises(LockTimeout, match=r"gpu-state\.json\.lock"),
        StateFile(lib.path, lib.keep, 0.0).lock(),
    ):
        pass


def test_a_file_that_changed_is_not_written(lib: Lib) -> None:
    state = lib.read()
    other = lib.path.read_bytes().replace(b"least_allocated", b"other_strategy")
    lib.path.write_bytes(other)
    with pytest.raises(BooksChanged):
        lib.write(released(state))
    assert lib.path.read_bytes() == other
    lib.path.unlink()
    with pytest.raises(BooksChanged):
        lib.write(released(state))
    assert not lib.path.exists()


def test_a_file_that_changes_right_before_the_rename_is_not_written(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = lib.read()
    other = lib.path.read_bytes().replace(b"least_allocated", b"other_strategy")
    real = os.link

    def link(source: str, target: str, **how: int) -> None:
        lib.path.write_bytes(other)
        real(source, target, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(BooksChanged):
        lib.write(released(state))
    assert lib.path.read_bytes() == other
    assert lib.names() == {"gpu-state.json", "gpu-state.json.lock"}


def test_a_failed_write_leaves_everything_as_it_was(lib: Lib) -> None:
    before = lib.path.read_bytes()
    program = """
import resource, sys
from pathlib import Path
from ds01d.adapters.books.state_file import StateFile
from ds01d.errors import WriteFailed
from ds01d.model.primitives import ContainerName
from dataclasses import replace
book = StateFile(Path(sys.argv[1]), Path(sys.argv[2]), 1.0)
state = book.read()
slot = replace(state.slots["1.0"], containers=(ContainerName("x" * 1000),))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    with book.lock():
        book.write(replace(state, slots={**state.slots, "1.0": slot}), onto=state.digest)
except WriteFailed as error:
    print(error)
"""
    assert "gpu-state.json" in output(program, lib.path, lib.keep)
    assert lib.path.read_bytes() == before
    assert lib.names() == {"gpu-state.json", "gpu-state.json.lock"}


@pytest.mark.parametrize("left", range(8))
def test_without_descriptors_a_write_fails_and_blames_nobody(lib: Lib, left: int) -> None:
    before = lib.path.read_bytes()
    program = """
import os, resource, sys
from pathlib import Path
from ds01d.adapters.books.state_file import StateFile
from ds01d.errors import WriteFailed
from dataclasses import replace
book = StateFile(Path(sys.argv[1]), Path(sys.argv[2]), 1.0)
state = book.read()
free = {name: replace(slot, containers=(), users={}) for name, slot in state.slots.items()}
with book.lock():
    highest = max(map(int, os.listdir("/proc/self/fd")))
    used = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 1 + int(sys.argv[3]), 4096))
    try:
        book.write(replace(state, slots=free), onto=state.digest)
    except WriteFailed as error:
        print("failed", error)
    else:
        print("written")
"""
    told = output(program, lib.path, lib.keep, left)
    if told.startswith("failed"):
        assert "Too many open files" in told
        assert lib.path.read_bytes() == before
    else:
        assert released(lib.read()) == lib.read()


# --- last good copies and broken files --------------------------------------------------------


def test_the_last_good_copy_is_there_when_the_file_breaks(lib: Lib) -> None:
    good = lib.read()
    lib.book.save_last_good()
    lib.path.write_bytes(b"{")
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    assert state.last_good is not None
    assert state.last_good.slots == good.slots
    lib.book.save_last_good()
    assert (lib.keep / "gpu-state.last-good.json").read_bytes() == SAMPLE.read_bytes()


def test_a_copy_of_what_was_written_is_kept_afterwards(lib: Lib) -> None:
    state = lib.read()
    lib.book.save_last_good()
    lib.write(booked(state, "new._.1001"))
    assert (lib.keep / "gpu-state.last-good.json").read_bytes() == SAMPLE.read_bytes()
    lib.book.save_last_good()
    assert (lib.keep / "gpu-state.last-good.json").read_bytes() == lib.path.read_bytes()


def test_a_change_that_no_pass_has_saved_yet_is_not_lost(lib: Lib) -> None:
    state = lib.read()
    lib.book.save_last_good()
    lib.write(booked(state, "new._.1001"))
    lib.path.write_bytes(b"{")
    broken = lib.book.read()
    assert isinstance(broken, Unreadable)
    assert broken.last_good is not None
    assert broken.last_good.find_slots(ContainerName("new._.1001")) == (FIRST,)


def test_a_copy_that_another_process_has_saved_since_is_newer(lib: Lib) -> None:
    state = lib.read()
    lib.book.save_last_good()
    other = StateFile(lib.path, lib.keep, 0.2)
    with other.lock():
        other.write(booked(state, "new._.1001"), onto=state.digest)
    other.save_last_good()
    lib.path.write_bytes(b"{")
    broken = lib.book.read()
    assert isinstance(broken, Unreadable)
    assert broken.last_good is not None
    assert broken.last_good.find_slots(ContainerName("new._.1001")) == (FIRST,)


def test_a_broken_copy_is_no_copy(lib: Lib) -> None:
    lib.keep.mkdir()
    (lib.keep / "gpu-state.last-good.json").write_bytes(b"{")
    lib.path.unlink()
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    assert state.last_good is None


def test_a_copy_that_cannot_be_kept_fails_visibly_but_does_not_undo_a_write(lib: Lib) -> None:
    lib.keep.write_bytes(b"in the way")
    assert lib.write(booked(lib.read(), "new._.1001")) == lib.read()
    with pytest.raises(WriteFailed):
        lib.book.save_last_good()


@pytest.mark.parametrize("broken", [b"{", b"", None])
def test_a_broken_or_missing_file_is_rebuilt_and_the_broken_one_kept(
    lib: Lib, broken: bytes | None
) -> None:
    data = json.loads(SAMPLE.read_bytes())
    data["gpus"]["1.3"]["reserved_for"] = "ada"
    lib.path.write_text(json.dumps(data, indent=2))
    good = lib.read()
    lib.book.save_last_good()
    if broken is None:
        lib.path.unlink()
    else:
        lib.path.write_bytes(broken)
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    with lib.book.lock():
        now = lib.book.write(booked(good, "new._.1001"), onto=state.digest)
    assert now.slots[FIRST].containers == ("new._.1001",)
    assert json.loads(lib.path.read_bytes())["gpus"]["1.3"]["reserved_for"] == "ada"
    kept = [path.read_bytes() for path in lib.keep.glob("gpu-state.broken-*.json")]
    assert kept == ([] if broken is None else [broken])


def test_an_enormous_file_is_rebuilt(lib: Lib) -> None:
    good = lib.read()
    with lib.path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    with lib.book.lock():
        lib.book.write(good, onto=state.digest)
    assert lib.read().slots == good.slots
    assert [path.stat().st_size for path in lib.keep.glob("gpu-state.broken-*")] == [1 << 20]


def test_a_broken_file_that_changed_is_not_rebuilt(lib: Lib) -> None:
    good = lib.read()
    lib.path.write_bytes(b"{")
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    lib.path.write_bytes(b"{{")
    with lib.book.lock(), pytest.raises(BooksChanged):
        lib.book.write(good, onto=state.digest)


# --- killed -----------------------------------------------------------------------------------

KILLED = (
    DIES_AT
    + """
import shutil, sys
from dataclasses import replace
from pathlib import Path
from ds01d.adapters.books.state_file import StateFile

sample, folder = map(Path, sys.argv[1:])
number = 0
done = False
while not done:
    number += 1
    lib = folder / str(number)
    lib.mkdir()
    shutil.copy(sample, lib / "gpu-state.json")
    book = StateFile(lib / "gpu-state.json", lib / "keep", 1.0)
    state = book.read()
    slots = {name: replace(slot, containers=()) for name, slot in state.slots.items()}
    def act():
        with book.lock():
            book.write(replace(state, slots=slots), onto=state.digest)
    done = dies_at(number, act)
print(number)
"""
)


def test_killed_at_any_step_the_next_one_finishes_the_work(tmp_path: Path) -> None:
    steps = int(output(KILLED, SAMPLE, tmp_path))
    assert steps > 10
    outcomes = set()
    for number in range(1, steps + 1):
        folder = tmp_path / str(number)
        book = StateFile(folder / "gpu-state.json", folder / "keep", 0.2)
        state = book.read()
        assert isinstance(state, AllocatorState)
        outcomes.add(sum(len(slot.containers) for slot in state.slots.values()))
        # What we released ourselves must not come back as somebody else's booking.
        assert state.merge == frozenset()
        with book.lock():
            now = book.write(released(state), onto=state.digest)
        assert not any(slot.containers for slot in now.slots.values())
        assert now.merge == frozenset()
    assert outcomes == {0, 3}
