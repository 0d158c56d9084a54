"""Writers without a lock: no booking in a file that we replaced is lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from ds01d.adapters.books.late_writers import ReplacedFiles
from ds01d.errors import BooksChanged
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.primitives import DeviceUuid, SlotId
from tests.adapters.books.test_state_file import FIRST, SAMPLE, Lib, booked, released
from tests.support.scripts import start

LAST = SlotId("3.3")
LATE = ("late._.1002", LAST)


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lib:
    """No time passes for the links, however long a test takes: see `make_old`."""
    monkeypatch.setattr("ds01d.adapters.books.late_writers.read_boottime", lambda: 1000.0)
    return Lib(tmp_path)


@pytest.fixture
def writer(lib: Lib) -> Iterator[IO[str]]:
    """Open the state as the allocator does, truncating it."""
    descriptor = os.open(lib.path, os.O_WRONLY)
    with os.fdopen(descriptor, "w") as file:
        yield file


def with_late(data: bytes, user: str = "bob") -> str:
    """What the allocator writes who read `data`: one booking more."""
    state: dict[str, Any] = json.loads(data)
    slot = state["gpus"][LAST]
    slot["containers"].append(LATE[0])
    slot["users"][user] = slot["users"].get(user, 0) + 1
    return json.dumps(state, indent=2)


def write(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def links(lib: Lib) -> set[str]:
    return {name for name in lib.names() if "ds01d-replaced" in name and name[-5:] != ".base"}


def make_old(lib: Lib) -> None:
    """Let a minute pass for the links: they were made when this machine had just booted."""
    for name in lib.names():
        if "ds01d-replaced-" in name:
            head, _, tail = name.partition("ds01d-replaced-")
            (lib.folder / name).rename(lib.folder / f"{head}ds01d-replaced-{1:013d}{tail[13:]}")


def during_the_rename(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have something done right before the state is renamed over, the first time."""
    real = os.rename
    done = False

    def rename(source: str, target: str, **how: int) -> None:
        nonlocal done
        if target == "gpu-state.json" and not done:
            done = True
            act()
        real(source, target, **how)

    monkeypatch.setattr(os, "rename", rename)


def test_what_was_written_while_we_replaced_the_file_is_merged_at_once(
    lib: Lib, writer: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = lib.read()
    text = with_late(lib.path.read_bytes())
    during_the_rename(monkeypatch, lambda: write(writer, text))
    now = lib.write(released(state))
    assert now.slots[LAST].containers == (LATE[0],)
    assert now.slots[LAST].users == {"bob": 1}
    assert now.slots[FIRST].containers == ()
    assert now.merge == frozenset()
    assert lib.read() == now


def test_what_is_written_into_the_replaced_file_later_comes_back_as_merge(
    lib: Lib, writer: IO[str]
) -> None:
    state = lib.read()
    base = lib.path.read_bytes()
    lib.write(released(state))
    assert lib.read().merge == frozenset()
    write(writer, with_late(base))
    assert lib.read().merge == {LATE}


def test_it_also_comes_back_after_a_restart_of_ours(lib: Lib, writer: IO[str]) -> None:
    base = lib.path.read_bytes()
    lib.write(released(lib.read()))
    write(writer, with_late(base))
    again = type(lib.book)(lib.path, lib.keep, 0.2).read()
    assert isinstance(again, AllocatorState)
    assert again.merge == {LATE}


def test_what_ds01d_alone_writes_is_not_linked_and_links_of_before_count(
    lib: Lib, writer: IO[str]
) -> None:
    base = lib.path.read_bytes()
    lib.path.chmod(0o644)
    lib.write(released(lib.read()))
    (before,) = links(lib)
    lib.book = type(lib.book)(lib.path, lib.keep, 0.2, is_shared=False)
    lib.write(booked(lib.read(), "other._.1003"))
    assert links(lib) == {before}
    write(writer, with_late(base))
    assert lib.read().merge == {LATE}
    now = lib.write(released(lib.read()))
    assert now.slots[LAST].containers == (LATE[0],)
    make_old(lib)
    writer.close()
    lib.book.save_last_good()
    assert links(lib) == set()


def test_a_file_that_others_can_still_write_is_linked(lib: Lib) -> None:
    lib.book = type(lib.book)(lib.path, lib.keep, 0.2, is_shared=False)
    lib.path.chmod(0o664)
    lib.write(released(lib.read()))
    assert len(links(lib)) == 1


def test_the_next_write_merges_it_though_nobody_decided_so(lib: Lib, writer: IO[str]) -> None:
    base = lib.path.read_bytes()
    lib.write(released(lib.read()))
    write(writer, with_late(base))
    now = lib.write(booked(lib.read(), "other._.1003"))
    assert now.slots[LAST].containers == (LATE[0],)
    assert now.slots[FIRST].containers == ("other._.1003",)
    assert now.merge == frozenset()


def test_what_was_merged_may_be_released_at_once(lib: Lib, writer: IO[str]) -> None:
    base = lib.path.read_bytes()
    lib.write(released(lib.read()))
    write(writer, with_late(base))
    lib.write(lib.read())
    now = lib.write(released(lib.read()))
    assert now.slots[LAST].containers == ()
    assert lib.read().merge == frozenset()


def test_what_was_merged_and_wiped_out_by_an_older_copy_comes_back(
    lib: Lib, writer: IO[str]
) -> None:
    base = lib.path.read_bytes()
    lib.write(released(lib.read()))
    older = lib.path.read_bytes()
    write(writer, with_late(base))
    lib.write(lib.read())
    lib.path.write_bytes(older)
    assert lib.read().merge == {LATE}
    now = lib.write(lib.read())
    assert now.slots[LAST].containers == (LATE[0],)
    assert now.slots[LAST].users == {"bob": 1}


def test_a_writer_in_the_middle_of_its_write_is_left_to_the_next_reading(
    lib: Lib, writer: IO[str]
) -> None:
    base = lib.path.read_bytes()
    state = lib.read()
    lib.write(released(state))
    text = with_late(base)
    write(writer, text[:700])
    assert lib.read().merge == frozenset()
    now = lib.write(booked(lib.read(), "other._.1003"))
    assert now.slots[LAST].containers == ()
    writer.write(text[700:])
    writer.flush()
    assert lib.read().merge == {LATE}


def test_a_release_in_a_replaced_file_is_no_booking(lib: Lib, writer: IO[str]) -> None:
    state = lib.read()
    lib.write(booked(state, "test-validation._.1001", "more._.1001"))
    write(writer, with_late(SAMPLE.read_bytes()).replace("test-validation._.1001", "swapped"))
    assert lib.read().merge == {LATE, ("swapped", FIRST)}


def test_only_slots_that_still_exist_take_bookings_and_are_known_by_uuid(
    lib: Lib, writer: IO[str]
) -> None:
    state = lib.read()
    base = lib.path.read_bytes()
    moved = replace(state.slots[LAST], id=SlotId("3.6"), mig_index=6)
    slots = {name: slot for name, slot in state.slots.items() if name != LAST}
    lib.write(replace(state, slots={**slots, moved.id: moved}))
    write(writer, with_late(base))
    assert lib.read().merge == {(LATE[0], SlotId("3.6"))}
    fresh = replace(state.slots[LAST], uuid=DeviceUuid("MIG-another"))
    text = lib.path.read_text().replace('"3.6"', '"3.3"').replace(str(moved.uuid), str(fresh.uuid))
    lib.path.write_text(text)
    assert lib.read().merge == frozenset()


def test_a_writer_who_finishes_a_file_that_we_rebuilt_is_heard(lib: Lib, writer: IO[str]) -> None:
    good = lib.read()
    base = lib.path.read_bytes()
    write(writer, "{")
    state = lib.book.read()
    assert isinstance(state, Unreadable)
    with lib.book.lock():
        lib.book.write(released(good), onto=state.digest)
    write(writer, with_late(base))
    assert LATE in lib.read().merge


def test_a_base_that_a_power_failure_spoiled_counts_for_nothing(lib: Lib, writer: IO[str]) -> None:
    lib.write(released(lib.read()))
    (link,) = links(lib)
    (lib.folder / f"{link}.base").write_bytes(b"")
    assert lib.read().merge == frozenset()
    make_old(lib)
    writer.close()
    lib.book.save_last_good()
    assert lib.names() == {"gpu-state.json", "gpu-state.json.lock"}


# --- how long they are kept -------------------------------------------------------------------


def test_a_replaced_file_is_kept_for_ten_seconds_and_then_dropped(lib: Lib) -> None:
    lib.write(released(lib.read()))
    lib.book.save_last_good()
    assert len(links(lib)) == 1
    make_old(lib)
    lib.read()
    assert len(links(lib)) == 1
    lib.book.save_last_good()
    assert lib.names() == {"gpu-state.json", "gpu-state.json.lock"}


def test_it_is_kept_as_long_as_somebody_has_it_open_for_writing(lib: Lib, writer: IO[str]) -> None:
    base = lib.path.read_bytes()
    lib.write(released(lib.read()))
    make_old(lib)
    lib.book.save_last_good()
    assert len(links(lib)) == 1
    write(writer, with_late(base))
    writer.close()
    lib.book.save_last_good()
    assert lib.read().merge == {LATE}
    lib.write(lib.read())
    make_old(lib)
    lib.book.save_last_good()
    assert links(lib) == set()


def test_where_there_are_no_leases_it_is_kept_for_a_minute(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib.write(released(lib.read()))
    monkeypatch.setattr("ds01d.adapters.books.late_writers.is_open_for_writing", lambda _fd: None)
    monkeypatch.setattr("ds01d.adapters.books.late_writers._link_age_s", lambda _link: 59.0)
    lib.book.save_last_good()
    assert len(links(lib)) == 1
    monkeypatch.setattr("ds01d.adapters.books.late_writers._link_age_s", lambda _link: 61.0)
    lib.book.save_last_good()
    assert links(lib) == set()


def test_very_many_are_bounded(lib: Lib) -> None:
    for number in range(70):
        lib.write(booked(lib.read(), f"c{number}._.1001"))
    lib.book.save_last_good()
    assert len(links(lib)) == 64


def test_a_link_of_a_writer_that_got_no_further_is_forgotten(lib: Lib) -> None:
    """Killed between link and rename: what others add to the very file is no news later."""
    base = lib.path.read_bytes()
    files = ReplacedFiles(lib.path, is_shared=True)
    folder = os.open(lib.folder, os.O_RDONLY)
    try:
        with lib.path.open("rb") as file:
            files.keep_replaced(folder, file.fileno(), base)
    finally:
        os.close(folder)
    lib.path.write_text(with_late(base))
    assert lib.read().merge == frozenset()
    now = lib.write(booked(lib.read(), "other._.1003"))
    assert now.slots[LAST].containers == (LATE[0],)
    lib.path.write_text(lib.path.read_text().replace(f'"{LATE[0]}"', ""))  # The allocator releases.
    assert lib.read().slots[LAST].containers == ()
    assert lib.read().merge == frozenset()


def test_another_file_than_the_one_read_is_not_kept(lib: Lib) -> None:
    base = lib.path.read_bytes()
    with lib.path.open("rb") as file:
        lib.path.unlink()
        lib.path.write_bytes(base)
        folder = os.open(lib.folder, os.O_RDONLY)
        try:
            with pytest.raises(BooksChanged):
                ReplacedFiles(lib.path, is_shared=True).keep_replaced(folder, file.fileno(), base)
        finally:
            os.close(folder)
    assert lib.names() == {"gpu-state.json"}


# --- real writers -----------------------------------------------------------------------------

ALLOCATOR = """
import json, random, sys, time
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def read():
    while True:
        try:
            with open(path) as file:
                return json.load(file)
        except ValueError:
            pass

for number in range(count):
    state = read()
    slot = state["gpus"]["3.3"]
    slot["containers"].append(f"{name}{number}._.1001")
    slot["users"]["bob"] = slot["users"].get("bob", 0) + 1
    text = json.dumps(state, indent=2)
    file = open(path, "w")
    file.write(text[:500])
    file.flush()
    file.write(text[500:])
    file.close()
    # As allocations come one by one: the next one begins some time after this one is in the books.
    deadline = time.monotonic() + 90
    while f"{name}{number}._.1001" not in read()["gpus"]["3.3"]["containers"]:
        if time.monotonic() > deadline:
            sys.exit("lost: " + name + str(number))
        time.sleep(0.0005)
    time.sleep(random.uniform(0.0, 0.008))
"""


@pytest.mark.parametrize("slow_disk_s", [0.0, 0.002])
def test_nothing_that_an_allocator_books_is_lost_to_us_and_nothing_torn_is_read(
    lib: Lib, monkeypatch: pytest.MonkeyPatch, slow_disk_s: float
) -> None:
    """A slow disk leaves the allocator time to open the very file that is about to be replaced."""
    real = os.rename

    def rename(source: str, target: str, **how: int) -> None:
        time.sleep(slow_disk_s if target == lib.path.name else 0.0)
        real(source, target, **how)

    monkeypatch.setattr(os, "rename", rename)
    count = 40
    rounds = 0
    with start(ALLOCATOR, lib.path, "job", count) as allocator:
        while allocator.poll() is None:
            rounds += 1
            state = lib.read()  # Fails on anything torn.
            assert len(state.slots) == 12
            with lib.book.lock(), suppress(BooksChanged):
                lib.book.write(booked(state, f"ours{rounds}._.1002"), onto=state.digest)
        assert allocator.returncode == 0
    lib.write(lib.read())
    final = lib.read()
    assert final.merge == frozenset()
    assert set(final.slots[LAST].containers) == {f"job{n}._.1001" for n in range(count)}
    assert final.slots[LAST].users == {"bob": count}
    assert rounds > 5
