"""Metadata: one record harms no other, and no name leads out of the folder."""

from __future__ import annotations

import itertools
import json
import os
import pwd
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.adapters.books.metadata_dir import MetadataDirectory, as_bytes, as_text
from ds01d.adapters.books.metadata_format import parse_record, render_record
from ds01d.adapters.books.timestamps import format_iso
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, Signature
from ds01d.errors import BooksChanged, Malformed, WriteFailed
from ds01d.model.books import BadRecord, Record
from ds01d.model.primitives import ContainerName, Digest, SlotId, Source, Unknown, UserName, Wall
from ds01d.reconcile.books_ports import MetadataBook
from tests.support.samples import copy_sample
from tests.support.scripts import DIES_AT, output

STATES = Path(__file__).parents[2] / "data" / "states"
SAMPLES = sorted(STATES.glob("*/lib/container-metadata/*.json"))
TRAIN = ContainerName("train._.1001")
AT = Wall(1_795_000_000.25)


class Lib:
    """A private folder of records, with the two of a sample in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "container-metadata"
        copy_sample(STATES / "v3-4779337-mig/lib/container-metadata", self.path)
        self.keep = folder / "keep"
        self.book = MetadataDirectory(self.path, self.keep)

    def read(self) -> Mapping[ContainerName, Record | BadRecord]:
        records = self.book.read()
        assert not isinstance(records, Unknown)
        return records

    def good(self, name: ContainerName = TRAIN) -> Record:
        record = self.read()[name]
        assert isinstance(record, Record)
        return record

    def bad(self, name: str) -> BadRecord:
        record = self.read()[ContainerName(name)]
        assert isinstance(record, BadRecord)
        return record

    def file(self, name: str = TRAIN) -> Path:
        return self.path / f"{name}.json"

    def put(self, name: str, **fields: object) -> None:
        self.file(name).write_text(json.dumps({"container": name, **fields}, indent=2))

    def names(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}


@pytest.fixture
def lib(tmp_path: Path) -> Lib:
    return Lib(tmp_path)


# --- the format -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parts[-4]}/{path.stem}")
def test_a_sample_is_written_byte_for_byte_as_it_was(path: Path) -> None:
    data = path.read_bytes()
    record = parse_record(data, ContainerName(path.stem))
    assert render_record(data, record) == data
    assert render_record(None, record) == data


def test_a_record_is_understood(lib: Lib) -> None:
    record = lib.good(ContainerName("train2._.1001"))
    assert record.user == "alice"
    assert record.gpu_id == "1.1"
    assert record.priority == 10
    assert record.allocated_text == "2026-11-23T11:03:08.067707"
    assert record.allocated_at is not None
    assert format_iso(record.allocated_at) == record.allocated_text
    assert record.stopped_at is not None
    assert record.stopped_at - record.allocated_at == pytest.approx(1.115834)


@pytest.mark.parametrize(
    ("written", "slot"),
    [
        ("1.0", "1.0"),
        ("1:0", "1:0"),
        (1, "1"),
        ("0,1", "0"),
        (["1.2", "1.3"], "1.2"),
        ([3], "3"),
        ([], None),
        ("", None),
        (None, None),
    ],
)
def test_every_form_of_a_slot_is_understood(lib: Lib, written: object, slot: str | None) -> None:
    lib.put("c", gpu_id=written)
    assert lib.good(ContainerName("c")).gpu_id == slot


def test_a_time_that_is_none_is_kept_as_text(lib: Lib) -> None:
    lib.put("c", allocated_at="yesterday", stopped_at="2026-11-23T11:00:00Z")
    record = lib.good(ContainerName("c"))
    assert (record.allocated_at, record.allocated_text) == (None, "yesterday")
    assert record.stopped_at is not None
    data = lib.file("c").read_bytes()
    assert render_record(data, record) == data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b'{"container": "c"', "invalid JSON"),
        (b"[]", "expected object"),
        (b'{"priority": "high"}', "priority"),
        (b'{"gpu_id": 1.0}', "gpu_id"),
        (b'{"container": "other"}', "container: expected c"),
        (b'{"user": "\\ud800"}', "user: "),
        (b"[" * 100_000, "invalid JSON"),
    ],
)
def test_what_makes_no_sense_is_named(data: bytes, said: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_record(data, ContainerName("c"))
    assert said.lower() in str(refused.value).lower()


def test_unknown_fields_and_the_order_of_keys_are_kept() -> None:
    data = {"x": [1, {}], "user": "ada", "container": "c", "gpu_id": 1, "note": "ü"}
    base = json.dumps(data).encode()
    record = replace(parse_record(base, ContainerName("c")), user=UserName("bob"), stopped_at=AT)
    raw = json.loads(render_record(base, record))
    assert raw == {**data, "user": "bob", "stopped_at": format_iso(AT)}
    assert list(raw) == [*data, "stopped_at"]


def test_a_stale_stop_is_taken_out() -> None:
    base = b'{"container": "c", "user": null, "gpu_id": "0", "stopped_at": "2026-11-23T11:00:00"}'
    record = replace(parse_record(base, ContainerName("c")), stopped_at=None, stopped_text=None)
    assert json.loads(render_record(base, record)) == {
        "container": "c",
        "user": None,
        "gpu_id": "0",
    }


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
walls = st.none() | st.integers(10**6, 4 * 10**9).map(lambda number: Wall(float(number)))


@given(
    st.builds(
        Record,
        container=st.just(ContainerName("c")),
        user=st.none() | texts.filter(bool).map(UserName),
        gpu_id=st.none() | st.sampled_from(["0", "1.2", "1:0"]).map(SlotId),
        priority=st.none() | st.integers(-5, 100),
        allocated_at=walls,
        stopped_at=walls,
    ),
    st.none()
    | st.dictionaries(
        st.sampled_from(["container", "user", "gpu_id", "priority", "stopped_at", "x"]),
        texts | st.integers() | st.none(),
    ),
)
def test_what_is_written_onto_anything_is_read_again(
    record: Record, base: dict[str, Any] | None
) -> None:
    data = render_record(None if base is None else json.dumps(base).encode(), record)
    again = parse_record(data, record.container)
    assert (again.user, again.gpu_id, again.priority) == (
        record.user,
        record.gpu_id,
        record.priority,
    )
    for at, at_again in (
        (record.allocated_at, again.allocated_at),
        (record.stopped_at, again.stopped_at),
    ):
        assert at_again in {at, None if at is None else at + 3600}
    if base is not None and "x" in base:
        assert json.loads(data)["x"] == base["x"]


# --- reading ----------------------------------------------------------------------------------


def test_it_fits_the_port(lib: Lib) -> None:
    book: MetadataBook = lib.book
    assert set(lib.read()) == {"train._.1001", "train2._.1001"}
    assert book.read_text(TRAIN) == lib.file().read_text()


def test_what_is_no_record_is_passed_over(lib: Lib) -> None:
    for name in (".hidden.json", "notes.txt", ".ds01d-tmp-12.json", "x.json~"):
        (lib.path / name).write_text("?")
    (lib.path / "folder").mkdir()
    assert set(lib.read()) == {"train._.1001", "train2._.1001"}


def test_one_broken_record_harms_no_other(lib: Lib) -> None:
    lib.file("broken").write_text('{"container": ')
    bad = lib.bad("broken")
    assert bad.replaceable
    assert bad.digest
    assert str(lib.file("broken")) in bad.reason
    assert lib.good().user == "alice"


def test_what_is_no_ordinary_file_is_only_reported(lib: Lib) -> None:
    lib.file("link").symlink_to(lib.file())
    lib.file("folder").mkdir()
    os.mkfifo(lib.file("fifo"))
    lib.file("large").write_bytes(b" " * ((1 << 20) + 1))
    for name in ("link", "folder", "fifo", "large"):
        assert not lib.bad(name).replaceable


@pytest.mark.parametrize("name", ["a b", "-x", "_x", "x\ny", "ü", "a'b", "x" * 248 + "\t"])
def test_a_name_no_container_can_have_is_only_reported(lib: Lib, name: str) -> None:
    lib.file(name).write_text("{}")
    (bad,) = (record for record in lib.read().values() if isinstance(record, BadRecord))
    assert not bad.replaceable
    assert (bad.reason + bad.container).isprintable()


def test_a_name_that_is_no_text_is_only_reported(lib: Lib) -> None:
    (lib.path / os.fsdecode(b"\xff.json")).write_text("{}")
    assert not lib.bad("\\udcff").replaceable


def test_a_file_without_permission_is_only_reported_and_a_folder_without_it_is_unknown(
    lib: Lib,
) -> None:
    program = """
import os, sys
from pathlib import Path
from ds01d.adapters.books.metadata_dir import MetadataDirectory
path = Path(sys.argv[1])
os.chdir(path)  # The way there is closed to nobody.
(path / "closed.json").write_text("{}")
(path / "closed.json").chmod(0)
path.chmod(0o755)
if os.geteuid() == 0:
    os.setegid(65534), os.seteuid(65534)
book = MetadataDirectory(Path(), path)
print(book.read()["closed"].replaceable)
print(type(book.read()["train._.1001"]).__name__)
"""
    assert output(program, lib.path).split() == ["False", "Record"]
    program = """
import os, sys
from pathlib import Path
from ds01d.adapters.books.metadata_dir import MetadataDirectory
os.chmod(sys.argv[1], 0)
book = MetadataDirectory(Path(sys.argv[1]), Path("/nowhere"))
if os.geteuid() == 0:
    os.seteuid(65534)
print(type(book.read()).__name__)
"""
    assert output(program, lib.path).strip() == "Unknown"
    lib.path.chmod(0o755)


def test_a_missing_folder_is_unknown_not_empty(lib: Lib) -> None:
    shutil.rmtree(lib.path)
    for _ in range(2):
        missing = lib.book.read()
        assert isinstance(missing, Unknown)
        assert missing.source is Source.METADATA
        assert str(lib.path) in missing.reason
        lib.path.unlink(missing_ok=True)
        lib.path.write_text("a file")


def test_a_torn_record_is_read_when_it_is_whole(lib: Lib, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lib.file().read_bytes()
    lib.file().write_bytes(whole[:20])
    monkeypatch.setattr(
        "ds01d.adapters.books.metadata_reader.time.sleep", lambda _s: lib.file().write_bytes(whole)
    )
    assert lib.good().user == "alice"


def test_one_slow_look_at_a_torn_record_does_not_make_it_a_broken_one(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lib.file().read_bytes()
    lib.file().write_bytes(whole[:20])
    clock = itertools.count(0.0, 60.0)  # seconds: each look takes a minute

    class Time:
        monotonic = staticmethod(lambda: next(clock))
        sleep = staticmethod(lambda _s: lib.file().write_bytes(whole))

    monkeypatch.setattr("ds01d.adapters.books.metadata_reader.time", Time)
    monkeypatch.setattr(Signature, "is_racy", lambda *_: True)  # written just now
    assert lib.good().user == "alice"


def test_many_broken_records_together_are_waited_for_once(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    class Time:
        """No time passes but that for which somebody waits."""

        @staticmethod
        def sleep(seconds: float) -> None:
            now[0] += seconds

    monkeypatch.setattr("ds01d.adapters.books.metadata_reader.time", Time)
    monkeypatch.setattr(
        Signature, "is_racy", lambda *_: True
    )  # written just now, however slow we are
    for number in range(30):
        lib.file(f"broken{number}").write_text("{")
    records = lib.read()
    assert 0.05 < now[0] < 1.0
    assert sum(isinstance(record, BadRecord) for record in records.values()) == 30


def test_of_some_names_only_their_files_are_looked_at(lib: Lib) -> None:
    lib.read()
    lib.put("new", user="ada")
    lib.put(TRAIN, user="bob")
    lib.file("train2._.1001").unlink()
    some = lib.book.read(frozenset({TRAIN, ContainerName("../x")}))
    assert not isinstance(some, Unknown)
    assert set(some) == {"train._.1001", "train2._.1001"}
    record = some[TRAIN]
    assert isinstance(record, Record)
    assert record.user == "bob"
    assert set(lib.read()) == {"train._.1001", "new"}


# --- the cache --------------------------------------------------------------------------------


def age(path: Path) -> None:
    os.utime(path, (1e9, 1e9))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all files have been written long ago: time stamps of changes cannot be set."""
    monkeypatch.setattr("ds01d.adapters.files.safe_read.time.time_ns", lambda: 2**62)


@pytest.mark.usefixtures("later")
def test_what_did_not_change_is_not_read_again(lib: Lib, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lib.read()
    with monkeypatch.context() as context:
        context.setattr(
            "ds01d.adapters.books.metadata_reader.open_file", lambda *_a, **_k: pytest.fail("read")
        )
        assert lib.read() == before
    lib.put(TRAIN, user="bob")
    assert lib.good().user == "bob"
    lib.file().unlink()
    assert TRAIN not in lib.read()


@pytest.mark.usefixtures("later")
def test_what_could_not_be_read_is_tried_again_though_the_file_is_the_same(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = NotRead(obstacle=ReadFailure.FAILED, reason="Too many open files")
    with monkeypatch.context() as context:
        context.setattr("ds01d.adapters.books.metadata_reader.open_file", lambda *_a, **_k: failed)
        assert lib.bad(TRAIN).reason == "Too many open files"
    assert lib.good().user is not None


def test_a_file_written_lately_is_read_again_whatever_its_stamps_say(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock that stamps files may stand still between two writes."""
    always = Signature.of(lib.file().stat())
    always = always._replace(changed_ns=time.time_ns())
    monkeypatch.setattr(Signature, "of", lambda _status: always)
    assert lib.good().user == "alice"
    lib.file().write_bytes(lib.file().read_bytes().replace(b"alice", b"alina"))
    assert lib.good().user == "alina"


# --- whether what was read last is still so (decision 216) ---------------------------------------

ALONE = [ContainerName(f"job{number}") for number in range(3)]


class Alone:
    """A folder in which ds01d alone writes, read when its stamps were a moment old."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "container-metadata"
        self.path.mkdir(parents=True)
        for name in ALONE[:2]:
            self.put(name, "alice")
        self.book = MetadataDirectory(self.path, folder / "keep", is_shared=False)
        time.sleep(0.03)
        self.book.read()
        self.moves = 0

    def put(self, name: ContainerName, user: str) -> None:
        """As somebody else replaces a record."""
        text = json.dumps({"container": name, "user": user, "gpu_id": "0"})
        aside = self.path / ".aside"
        aside.write_text(text)
        aside.rename(self.path / f"{name}.json")

    def move_on(self) -> None:
        """The clock that stamps files has moved on."""
        self.moves += 1
        stamp = time.time_ns() + 1_000_003 * self.moves
        os.utime(self.path, ns=(stamp, stamp))

    def read(self, name: ContainerName) -> object:
        """As a booking of `name` reads them."""
        return self.book.read(frozenset({name}) if self.book.is_current() else None)

    def read_afresh(self) -> object:
        return MetadataDirectory(self.path, self.path.parent / "keep").read()


MOVES = st.tuples(
    st.sampled_from(["write", "remove", "restore", "fail", "put", "delete"]),
    st.sampled_from(ALONE),
    st.sampled_from(["alice", "bob"]),
)


def change(alone: Alone, move: tuple[str, ContainerName, str]) -> None:
    """One change, by the book itself or by somebody else."""
    deed, name, user = move
    there = alone.read_afresh()
    assert isinstance(there, dict)
    digest = there[name].digest if name in there else None
    record = Record(container=name, user=UserName(user), gpu_id=SlotId("0"))
    if deed == "write":
        alone.book.write(record, onto=digest)
    elif deed == "fail":
        with pytest.raises(BooksChanged):
            alone.book.write(record, onto=Digest("another"))
    elif deed == "restore":
        text = json.dumps({"container": name, "user": user, "gpu_id": "0"})
        alone.book.restore_text(name, text, onto=digest)
    elif deed == "remove" and digest is not None:
        alone.book.remove(name, onto=digest)
    elif deed == "put":
        alone.put(name, user)
        alone.move_on()
    elif deed == "delete" and digest is not None:
        (alone.path / f"{name}.json").unlink()
        alone.move_on()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(MOVES, st.sampled_from(ALONE)), max_size=6))
def test_records_as_last_read_are_those_of_a_reading_afresh(
    tmp_path_factory: pytest.TempPathFactory,
    moves: list[tuple[tuple[str, ContainerName, str], ContainerName]],
) -> None:
    """Whoever changed one in between: of our own changes only those are read, of others all."""
    alone = Alone(tmp_path_factory.mktemp("alone"))
    for move, booked in moves:
        change(alone, move)
        assert alone.read(booked) == alone.read_afresh()


def test_after_changes_of_our_own_the_records_are_still_known(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    assert alone.book.is_current()
    change(alone, ("write", ALONE[2], "bob"))
    change(alone, ("remove", ALONE[0], ""))
    assert alone.book.is_current()
    change(alone, ("put", ALONE[1], "bob"))
    assert not alone.book.is_current()
    change(alone, ("write", ALONE[2], "carol"))  # our next change does not hide theirs
    assert not alone.book.is_current()


def test_where_others_may_write_the_records_are_never_known(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    shared = MetadataDirectory(alone.path, tmp_path / "keep", is_shared=True)
    shared.read()
    assert not shared.is_current()
    alone.path.chmod(0o775)  # it was not taken over
    alone.move_on()
    time.sleep(0.03)
    alone.book.read()
    assert not alone.book.is_current()


def test_right_after_a_change_a_reading_is_not_relied_upon(tmp_path: Path) -> None:
    """Another change then may leave the same stamps."""
    alone = Alone(tmp_path)
    alone.put(ALONE[0], "bob")
    alone.book.read()
    assert not alone.book.is_current()
    alone.path.chmod(0o755)
    stamp = 1_795_000_000_000_000_000  # of a file system that counts in seconds
    os.utime(alone.path, ns=(stamp, stamp))
    time.sleep(0.03)
    alone.book.read()
    assert not alone.book.is_current()


# --- writing ----------------------------------------------------------------------------------


def test_a_record_is_changed_where_it_is_as_decided_upon(lib: Lib) -> None:
    record = lib.good()
    lib.book.write(replace(record, gpu_id=SlotId("1.3")), onto=record.digest)
    assert lib.good().gpu_id == "1.3"
    with pytest.raises(BooksChanged):
        lib.book.write(record, onto=record.digest)
    lib.file().unlink()
    with pytest.raises(BooksChanged):
        lib.book.write(record, onto=record.digest)
    assert not lib.file().exists()


def test_nothing_is_written_where_nothing_would_change(lib: Lib) -> None:
    record = lib.good()
    before = lib.file().stat()
    lib.book.write(record, onto=record.digest)
    assert lib.file().stat() == before


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("odd", [0o000, 0o600, 0o666])
def test_a_new_record_has_the_rights_that_most_have(lib: Lib, odd: int, is_read: bool) -> None:
    for number in range(4):
        lib.put(ContainerName(f"other{number}._.1001"), user="ada")
    for path in lib.path.iterdir():
        path.chmod(0o640)
    if is_read:
        lib.read()
    for path in sorted(lib.path.iterdir())[:2]:
        path.chmod(odd)
    new = ContainerName("new._.1003")
    lib.book.write(Record(container=new, user=UserName("ada"), gpu_id=None), onto=None)
    assert lib.file(new).stat().st_mode & 0o777 == 0o640


def test_a_record_that_nobody_may_read_gives_its_rights_to_none(lib: Lib) -> None:
    for path in lib.path.iterdir():
        path.chmod(0)
    new = ContainerName("new._.1003")
    lib.book.write(Record(container=new, user=UserName("ada"), gpu_id=None), onto=None)
    assert lib.file(new).stat().st_mode & 0o777 == 0o644


def test_a_new_record_takes_after_its_siblings_and_overwrites_nothing(lib: Lib) -> None:
    for path in lib.path.iterdir():
        path.chmod(0o640)
    record = Record(
        container=ContainerName("new._.1003"),
        user=UserName("ada"),
        gpu_id=SlotId("1.2"),
        priority=10,
        allocated_at=AT,
    )
    lib.book.write(record, onto=None)
    assert json.loads(lib.file("new._.1003").read_bytes()) == {
        "container": "new._.1003",
        "user": "ada",
        "gpu_id": "1.2",
        "priority": 10,
        "allocated_at": format_iso(AT),
    }
    assert lib.file("new._.1003").stat().st_mode & 0o777 == 0o640
    with pytest.raises(BooksChanged):
        lib.book.write(record, onto=None)


def test_a_broken_record_is_kept_aside_when_it_is_replaced(lib: Lib) -> None:
    lib.file().write_text("{")
    record = Record(container=TRAIN, user=UserName("ada"), gpu_id=SlotId("1.2"))
    lib.book.write(record, onto=lib.bad(TRAIN).digest)
    assert lib.good().user == "ada"
    (kept,) = (lib.keep / "metadata-broken").iterdir()
    assert kept.read_text() == "{"
    assert kept.name.startswith(f"{TRAIN}-")


def test_unknown_fields_survive_the_repair_of_a_broken_record(lib: Lib) -> None:
    lib.put(TRAIN, user=7, note="mine")
    record = Record(container=TRAIN, user=UserName("ada"), gpu_id=None)
    lib.book.write(record, onto=lib.bad(TRAIN).digest)
    assert json.loads(lib.file().read_bytes()) == {
        "note": "mine",
        "container": TRAIN,
        "user": "ada",
        "gpu_id": None,
    }


def test_a_record_is_removed_only_as_decided_upon(lib: Lib) -> None:
    record = lib.good()
    with pytest.raises(BooksChanged):
        lib.book.remove(TRAIN, onto=Digest("other"))
    assert lib.file().exists()
    lib.book.remove(TRAIN, onto=record.digest)
    assert not lib.file().exists()
    with pytest.raises(BooksChanged):
        lib.book.remove(TRAIN, onto=record.digest)


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", ".", "", "x\0y", "/etc/x", "x" * 251])
def test_no_name_leads_out_of_the_folder(lib: Lib, name: str) -> None:
    container = ContainerName(name)
    outside = lib.path.parent / "escape.json"
    outside.write_text("{}")
    assert lib.book.read_text(container) is None
    with pytest.raises(WriteFailed):
        lib.book.write(Record(container=container, user=None, gpu_id=None), onto=None)
    with pytest.raises(WriteFailed):
        lib.book.remove(container, onto=Digest(""))
    assert outside.read_text() == "{}"


def test_no_link_is_followed(lib: Lib, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text('{"container": "link"}')
    lib.file("link").symlink_to(target)
    name = ContainerName("link")
    assert lib.book.read_text(name) is None
    for onto in (lib.bad("link").digest, Digest("x"), None):
        with pytest.raises(BooksChanged):
            lib.book.write(Record(container=name, user=None, gpu_id=None), onto=onto)
    with pytest.raises(BooksChanged):
        lib.book.remove(name, onto=lib.bad("link").digest)
    assert target.read_text() == '{"container": "link"}'
    assert lib.file("link").is_symlink()


@given(st.binary() | st.text().map(str.encode) | st.text().map(lambda t: f"base64:{t}".encode()))
def test_any_bytes_come_back_from_their_text(data: bytes) -> None:
    assert as_bytes(as_text(data)) == data


@pytest.mark.parametrize("data", [b"\xff{", b"{}", b"", b"base64:x"])
def test_a_file_is_put_back_as_it_was_whatever_it_held(lib: Lib, data: bytes) -> None:
    lib.file().write_bytes(data)
    text = lib.book.read_text(TRAIN)
    there = lib.read()[TRAIN]
    lib.book.restore_text(TRAIN, None, onto=there.digest)
    assert not lib.file().exists()
    lib.book.restore_text(TRAIN, text, onto=None)
    assert lib.file().read_bytes() == data
    with pytest.raises(BooksChanged):
        lib.book.restore_text(TRAIN, "{}", onto=Digest("another"))


def test_a_draft_is_what_is_written(lib: Lib) -> None:
    record = replace(lib.good(), user=UserName("zoe"), stopped_at=AT, stopped_text=None)
    draft = lib.book.render_record(record)
    lib.book.write(record, onto=record.digest)
    assert lib.book.read_text(TRAIN) == draft
    assert lib.book.read_text(ContainerName("missing")) is None


def test_leftovers_of_killed_writers_are_swept(lib: Lib) -> None:
    leftover = lib.path / ".ds01d-tmp-0123"
    leftover.touch()
    age(leftover)
    record = lib.good()
    assert leftover.exists()
    lib.book.remove(TRAIN, onto=record.digest)
    assert not leftover.exists()


def test_leftovers_are_swept_also_where_nothing_is_to_be_written(lib: Lib) -> None:
    old, fresh = lib.path / ".ds01d-tmp-0123", lib.path / ".ds01d-tmp-4567"
    for leftover in (old, fresh):
        leftover.touch()
    age(old)
    lib.read()
    lib.book.remove_leftovers()
    assert not old.exists()
    assert fresh.exists()  # somebody may be at it


def test_killed_at_any_step_a_record_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    program = (
        DIES_AT
        + """
import sys
from dataclasses import replace
from pathlib import Path
from ds01d.adapters.books.metadata_dir import MetadataDirectory
number = 0
done = False
while not done:
    number += 1
    folder = Path(sys.argv[1]) / str(number)
    folder.mkdir()
    for name in ("old", "gone"):
        (folder / f"{name}.json").write_text('{"user": "ada"}')
    book = MetadataDirectory(folder, folder)
    records = book.read()
    def act():
        book.write(replace(records["old"], user="bob"), onto=records["old"].digest)
        book.write(replace(records["old"], container="new"), onto=None)
        book.remove("gone", onto=records["gone"].digest)
    done = dies_at(number, act)
print(number)
"""
    )
    seen = set()
    for number in range(1, int(output(program, tmp_path)) + 1):
        records = MetadataDirectory(tmp_path / str(number), tmp_path).read()
        assert isinstance(records, dict)
        assert all(isinstance(record, Record) for record in records.values())
        seen.add((records[ContainerName("old")].user, "new" in records, "gone" in records))
    assert seen == {
        ("ada", False, True),
        ("bob", False, True),
        ("bob", True, True),
        ("bob", True, False),
    }


def test_a_record_is_bounded_before_it_is_understood(lib: Lib) -> None:
    """110 records of a megabyte made a history of 70 MB."""
    lib.file().write_text(json.dumps({"user": "alice", "note": "x" * 256 * 1024}))
    record = lib.bad(TRAIN)
    assert not record.replaceable
    assert record.reason.endswith("has more than 262144 bytes")


def test_so_many_records_that_they_cannot_be_read_in_time_are_unknown_with_their_owner(
    lib: Lib, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not isinstance(lib.book.read(), Unknown)
    monkeypatch.setattr("ds01d.adapters.books.metadata_listing.MAX_RECORDS", 100)
    for number in range(100):
        (lib.path / f"flood{number}.json").write_text("{}")
    answer = lib.book.read()
    assert isinstance(answer, Unknown)
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert f"more than 100 files, most of them of {me}; remove" in answer.reason
    some = lib.book.read(frozenset({TRAIN}))
    assert not isinstance(some, Unknown), "what concerns one container alone goes on"
    assert isinstance(some[TRAIN], Record)


@pytest.mark.parametrize("priority", [2**31 + 1, -(10**30), 10**4000])
def test_a_priority_that_no_reader_could_take_is_none(lib: Lib, priority: int) -> None:
    lib.file().write_text(json.dumps({"user": "alice", "priority": priority}))
    record = lib.bad(TRAIN)
    assert record.replaceable
    assert "priority" in record.reason
