"""What anybody who may write to a fleet's store can put there, before it reaches anything else."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds01d import config as configuration
from ds01d.adapters.fleet import book_format, kept_values
from ds01d.adapters.fleet.book_format import (
    MAX_EXTRA_BYTES,
    encode_entry,
    parse_entry,
    parse_identity,
)
from ds01d.adapters.fleet.book_keys import split_key
from ds01d.adapters.fleet.etcd_messages import KeyValue, RangeReply
from ds01d.adapters.fleet.etcd_store import EtcdStore
from ds01d.adapters.fleet.kept_values import KeptValues
from ds01d.adapters.fleet.stored_values import Spoilt, parse_key
from ds01d.adapters.state_dir import StateDirectory
from ds01d.bootstrap_fleet import make_settings
from ds01d.errors import Malformed, StoreFailed
from ds01d.reconcile.fleet_memory import find_node

HELD = b'{"v":1,"phase":"held","container":"c","count":2,"sevenths":14}'
ENTRY: dict[str, object] = {"v": 1, "phase": "held", "container": "c", "count": 2, "sevenths": 14}
IDENTITY: dict[str, object] = {"v": 1, "host": "gpu02", "incarnation": 1}


@pytest.mark.parametrize(
    "key",
    [
        # Half a surrogate pair: no JSON can hold it, so no reply and no status could be sent.
        b"users/alice/held/%ED%A0%80/b1",
        b"users/%ED%B0%80/held/n2/b1",
        b"names/%ED%A0%80",
        b"users/alice/held/" + b"n" * 5000 + b"/b1",
        b"users/" + b"%C3%A4" * 2000 + b"/held/n2/b1",
    ],
)
def test_a_name_that_could_not_be_shown_is_malformed(key: bytes) -> None:
    value = parse_key(KeyValue(key=b"/ds01/v1/" + key, value=HELD))
    assert isinstance(value, Spoilt)
    with pytest.raises(Malformed) as problem:
        split_key(b"/ds01/v1/" + key)
    text = str(problem.value)
    assert len(text) < 400
    msgspec.json.encode(text)


@pytest.mark.parametrize(
    "field",
    [
        {"version": "9" * 60_000},
        {"engine_id": "e" * 60_000},
        {"protocols": list(range(10_000))},
        {"protocols": [10**30]},
        {"host": ""},
    ],
)
def test_an_identity_that_would_swell_each_status_is_malformed(field: dict[str, object]) -> None:
    assert parse_identity("n2", msgspec.json.encode(IDENTITY)).host == "gpu02"
    with pytest.raises(Malformed):
        parse_identity("n2", msgspec.json.encode(IDENTITY | field))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"summary/%d", {"state": "member", "x": [[]] * 100}),
        (b"summary/%d", {"x": [{"": {"": {}}}] * 30}),
        (b"users/alice/held/n2/%d", {**ENTRY, "x": [[]] * 1000}),
        (b"users/alice/held/n2/%d", {**ENTRY, **{f"x{n}": 1 for n in range(30)}}),
        (b"users/alice/held/n2/%d", {**ENTRY, "slots": [f"NUMBER-{n}" for n in range(1000)]}),
        (b"users/alice/held/n2/%d", {**ENTRY, "container": "\U0001f600" + "c" * 1000}),
        (b"users/%d/held/n2/%d", ENTRY),
        (b"users/" + b"%F0%9F%98%80" + b"u" * 900 + b"%d/held/n2/b", ENTRY),
        (b"names/%d", {"v": 1, "node": "\U0001f600" + "n" * 1000 + "NUMBER", "booking": "b"}),
        (b"nodes/%d/identity", {**IDENTITY, "version": "\U0001f600" + "v" * 200}),
        (b"nodes/%d/alive", {}),
        (b"names/%d", {"v": -1}),
    ],
)
def test_what_is_kept_of_the_store_is_bounded_in_memory(
    monkeypatch: pytest.MonkeyPatch, key: bytes, value: dict[str, object]
) -> None:
    """By the memory that it takes, which is up to fifty times what it has in the store."""
    taken = measure_kept(monkeypatch, key, msgspec.json.encode(value))
    assert taken < 1.2 * kept_values.MAX_KEPT_BYTES


def test_usual_entries_are_counted_at_about_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {**ENTRY, "container": "train-NUMBER._.1001", "slots": ["0.1"], "since": 1.0}
    key = b"users/alice/held/7f3f0f6c-1b67/5b0cb7f4-33cd-4a71-%d"
    taken = measure_kept(monkeypatch, key, msgspec.json.encode(entry))
    assert kept_values.MAX_KEPT_BYTES / 3 < taken < kept_values.MAX_KEPT_BYTES


def measure_kept(monkeypatch: pytest.MonkeyPatch, key: bytes, value: bytes) -> int:
    """How many bytes are kept of such keys, each with its number, before it is too much."""
    monkeypatch.setattr(kept_values, "MAX_KEPT_BYTES", 4 << 20)
    # Python's table of interned texts grows by as much as all texts of all tests need.
    monkeypatch.setattr(book_format, "intern", str)
    keys = [number_key(number, key, value) for number in range(10_000)]
    with pytest.raises(
        StoreFailed, match=r"too much in etcd: \d+ keys take more than 4 MiB"
    ) as error:
        KeptValues().take_keys(keys)
    count = int(str(error.value).split()[4]) - 1
    values = KeptValues()
    # Only what `take_keys` allocates: threads that other tests left allocate as well.
    own = tracemalloc.Filter(inclusive=True, filename_pattern=kept_values.__file__, all_frames=True)
    tracemalloc.start(10)
    try:
        values.take_keys(keys[:count])
        kept = tracemalloc.take_snapshot().filter_traces([own])
    finally:
        tracemalloc.stop()
    assert len(values.by_key) == count
    return sum(trace.size for trace in kept.traces) + sum(
        sys.getsizeof(k.key) for k in keys[:count]
    )


def number_key(number: int, key: bytes, value: bytes) -> KeyValue:
    path = b"/ds01/v1/" + key.replace(b"%d", b"%d" % number)
    return KeyValue(key=path, value=value.replace(b"NUMBER", b"%d" % number))


def test_what_is_replaced_or_deleted_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_values, "MAX_KEPT_BYTES", 100_000)
    values = KeptValues()
    for number in range(1000):
        for name in (b"kept", b"%d" % number):
            key = b"/ds01/v1/users/alice/held/n2/" + name
            values.take_keys([KeyValue(key=key, value=HELD)])
        values.retain_keys([b"/ds01/v1/users/alice/held/n2/kept"])
    assert len(values.by_key) == 1


@pytest.mark.parametrize("size", [3000, 5000])
def test_fields_of_another_version_are_kept_within_bounds(size: int) -> None:
    value = msgspec.json.encode({**ENTRY, "team": "x" * size})
    if size > MAX_EXTRA_BYTES:
        with pytest.raises(Malformed, match="1 fields of another version with 5006 bytes"):
            parse_entry("alice", "n2", "b1", value)
        return
    entry = parse_entry("alice", "n2", "b1", value)
    assert msgspec.json.decode(encode_entry(entry)) == {
        **ENTRY,
        "team": "x" * size,
        "slots": [],
        "since": 0.0,
    }


class _Endless:
    """A server that has one more key with each answer."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self, *_: Any) -> RangeReply:
        self.calls += 1
        key = KeyValue(key=b"/ds01/v1/users/%09d" % self.calls, value=b"x" * 1000)
        return RangeReply(kvs=(key,), more=True)


def test_pages_without_end_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Endless()
    store = EtcdStore(client)  # type: ignore[arg-type]
    with pytest.raises(StoreFailed, match="too much in etcd"):
        list(store.scan(b"/ds01/v1/", b"/ds01/v10", within_s=0.0))
    assert client.calls == 1
    monkeypatch.setattr("ds01d.adapters.fleet.etcd_store.MAX_BYTES", 10_000)
    with pytest.raises(StoreFailed, match="too much in etcd"):
        list(store.scan(b"/ds01/v1/", b"/ds01/v10"))
    assert client.calls < 20


# --- what a host keeps of itself


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"{", b'{"nodes": 7}', b'{"node": ""}'])
def test_a_damaged_file_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "fleet.json"
    file.write_bytes(content)
    assert find_node(StateDirectory(tmp_path, 1.0), lambda: "made-up") == "made-up"
    assert file.read_bytes() == content


def test_a_file_that_cannot_be_read_is_not_none(tmp_path: Path) -> None:
    """Or this host would take part as another one, and count twice."""
    store = StateDirectory(tmp_path, 1.0)
    assert find_node(store, lambda: "first") == "first"
    (tmp_path / "fleet.json").rename(tmp_path / "elsewhere.json")
    (tmp_path / "fleet.json").symlink_to("elsewhere.json")
    before = (tmp_path / "elsewhere.json").read_bytes()
    assert find_node(store, lambda: "second") == "second"
    assert (tmp_path / "fleet.json").is_symlink()
    assert (tmp_path / "elsewhere.json").read_bytes() == before
    with pytest.raises(Malformed, match="symbolic link"):
        store.load_kept("fleet.json")


def test_certificates_that_cannot_be_looked_at_end_no_daemon() -> None:
    """It is opened at each reload: whoever is asked then says what is wrong."""
    fleet = configuration.FleetConfig(etcd=("https://127.0.0.1:1",), certificates="/" + "x" * 300)
    assert make_settings(fleet, {}).tls.authority is not None
