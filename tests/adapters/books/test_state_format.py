"""gpu-state.json: every layout is understood, and written as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.books import state_format
from ds01d.adapters.books.state_format import parse_state, render_state
from ds01d.errors import Malformed
from ds01d.model.books import AllocatorState, Slot, SlotType
from ds01d.model.primitives import ContainerName, DeviceUuid, Digest, SlotId

STATES = Path(__file__).parents[2] / "data" / "states"
SAMPLES = sorted(STATES.glob("*/lib/gpu-state.json"))


def sample(name: str) -> bytes:
    return (STATES / name / "lib" / "gpu-state.json").read_bytes()


def parse(data: bytes | dict[str, Any]) -> AllocatorState:
    return parse_state(data if isinstance(data, bytes) else json.dumps(data).encode(), "state")


def with_slot(state: AllocatorState, slot: Slot) -> AllocatorState:
    return replace(state, slots={**state.slots, slot.id: slot})


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.parts[-3])
def test_a_sample_is_written_byte_for_byte_as_it_was(path: Path) -> None:
    data = path.read_bytes()
    state = parse(data)
    assert render_state(data, state) == data
    # Also where something changes and changes back.
    slot = next(iter(state.slots.values()))
    busy = render_state(data, with_slot(state, replace(slot, containers=(ContainerName("x"),))))
    assert busy != data
    assert render_state(busy, state) == data


@pytest.mark.parametrize("name", ["drift-seed", "v3-4779337-full", "v3-dcce6c2-shared"])
def test_a_state_from_nothing_looks_like_the_allocators(name: str) -> None:
    data = sample(name)
    assert render_state(None, parse(data)) == data


def test_mig_slots_are_understood() -> None:
    slot = parse(sample("drift-seed")).slots[SlotId("1.2")]
    assert slot == Slot(
        id=SlotId("1.2"),
        type=SlotType.MIG,
        gpu_index=1,
        mig_index=2,
        containers=(ContainerName("test-final._.1001"),),
        users={"datasciencelab": 1},
        uuid=DeviceUuid("MIG-cc24373e-d859-426c-91ea-f0662f0b3265"),
        profile="1g.10gb",
    )


def test_the_oldest_ids_and_whole_gpus_are_understood() -> None:
    old = parse(sample("v1-3ce8a4f-mig")).slots[SlotId("1:1")]
    assert (old.type, old.gpu_index, old.mig_index, old.uuid) == (SlotType.MIG, 1, 1, None)
    whole = parse(sample("v2-a2a2ae8-mig-enabled"))
    assert whole.mig_enabled
    slot = whole.slots[SlotId("0")]
    assert (slot.type, slot.gpu_index, slot.mig_index) == (SlotType.PHYSICAL, 0, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "state: empty"),
        (b'{"gpus": {', "state: invalid JSON"),
        (b"\xff", "state: invalid JSON"),
        (b"[" * 100_000, "state: invalid JSON"),
        (b"[]", "state: expected object, got array"),
        (b"{}", "state: object missing required field gpus"),
        (b'{"gpus": []}', "state: gpus: expected object, got array"),
        (b'{"gpus": {}, "mig_enabled": 1}', "state: mig_enabled: expected bool"),
        (b'{"gpus": {"1.0": []}}', "state: gpus.1.0: expected object, got array"),
        (
            b'{"gpus": {"1.0": {"containers": ["a", "b", 3]}}}',
            "state: gpus.1.0.containers[2]: expected str, got int",
        ),
        (b'{"gpus": {"1.0": {"containers": "a"}}}', "state: gpus.1.0.containers: expected array"),
        (b'{"gpus": {"0": {"users": {"ada": "1"}}}}', "state: gpus.0.users[...]: expected int"),
        (b'{"gpus": {"0": {"users": {"ada": true}}}}', "state: gpus.0.users[...]: expected int"),
        (b'{"gpus": {"gpu0": {}}}', "state: gpus.gpu0: invalid slot ID"),
        (b'{"gpus": {"0": {"type": "mig_instance"}}}', "state: gpus.0.type: expected physical_gpu"),
        (b'{"gpus": {"0": {"containers": ["\\ud800"]}}}', "invalid text"),
        (b'{"gpus": {"0": {"reserved_for": "\\ud800"}}}', "invalid text"),
        (b'{"gpus": {"\\ud800": {}}}', "invalid slot ID"),
        (b'"\\ud800"', "invalid text"),
    ],
)
def test_what_makes_no_sense_is_named_with_file_and_key(text: bytes, said: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse(text)
    assert said in str(refused.value)


def test_unknown_keys_are_carried_over() -> None:
    data = {
        "version": 7,
        "gpus": {"0": {"containers": [], "users": {}, "note": {"a": [1.5, None]}}},
        "mig_enabled": False,
        "x": "ü",
    }
    base = json.dumps(data).encode()
    state = parse(base)
    slot = replace(state.slots[SlotId("0")], containers=(ContainerName("c"),), users={"u": 1})
    rendered = json.loads(render_state(base, with_slot(state, slot)))
    assert rendered["gpus"]["0"].pop("containers") == ["c"]
    assert rendered["gpus"]["0"].pop("users") == {"u": 1}
    assert rendered == {**data, "gpus": {"0": {"note": {"a": [1.5, None]}}}}
    assert list(rendered) == list(data)


def test_another_layout_of_the_same_content_is_left_alone() -> None:
    base = b' {"mig_enabled":false,"gpus":{"0":{"users":{},"containers":[]}}}\n'
    assert render_state(base, parse(base)) == base


def test_a_slot_that_moved_takes_its_unknown_fields_along() -> None:
    data = json.loads(sample("drift-seed"))
    data["gpus"]["1.3"]["reserved_for"] = "ada"
    base = json.dumps(data, indent=2).encode()
    state = parse(base)
    first, last = state.slots[SlotId("1.0")], state.slots[SlotId("1.3")]
    moved = {
        **state.slots,
        SlotId("1.0"): replace(last, id=first.id, mig_index=0),
        SlotId("1.3"): replace(first, id=last.id, mig_index=3),
    }
    slots = json.loads(render_state(base, replace(state, slots=moved)))["gpus"]
    assert slots["1.0"]["reserved_for"] == "ada"
    assert slots["1.0"]["device_id"] == "0"
    assert slots["1.0"]["uuid"] == slots["1.0"]["docker_id"] == last.uuid
    assert slots["1.3"]["reserved_for"] is None
    assert slots["1.3"]["containers"] == ["test-validation._.1001"]


def test_a_new_device_under_an_old_id_does_not_inherit_what_moved_away() -> None:
    data = json.loads(sample("drift-seed"))
    data["gpus"]["1.0"]["reserved_for"] = "ada"
    base = json.dumps(data, indent=2).encode()
    state = parse(base)
    first = state.slots[SlotId("1.0")]
    slots = {name: slot for name, slot in state.slots.items() if slot.gpu_index != 1}
    slots[SlotId("1.5")] = replace(first, id=SlotId("1.5"), mig_index=5)
    slots[first.id] = replace(first, uuid=DeviceUuid("MIG-new"), containers=(), users={})
    rendered = json.loads(render_state(base, replace(state, slots=slots)))["gpus"]
    assert list(rendered)[:2] == ["1.0", "1.5"]
    assert rendered["1.5"]["reserved_for"] == "ada"
    assert rendered["1.0"] == {
        "type": "mig_instance",
        "physical_gpu": "1",
        "device_id": "0",
        "uuid": "MIG-new",
        "profile": "1g.10gb",
        "docker_id": "MIG-new",
        "containers": [],
        "users": {},
        "reserved_until": None,
        "reserved_for": None,
    }


def test_a_refreshed_uuid_refreshes_what_belongs_to_it() -> None:
    base = sample("drift-seed")
    state = parse(base)
    slot = replace(state.slots[SlotId("1.0")], uuid=DeviceUuid("MIG-fresh"), profile="2g.20gb")
    raw = json.loads(render_state(base, with_slot(state, slot)))["gpus"]["1.0"]
    assert raw["uuid"] == raw["docker_id"] == "MIG-fresh"
    assert raw["profile"] == "2g.20gb"
    assert raw["containers"] == ["test-validation._.1001"]


def test_two_slots_with_one_uuid_keep_what_each_has_of_its_own() -> None:
    twice = {"type": "mig_instance", "uuid": "MIG-a", "containers": [], "users": {}}
    data = json.dumps({"gpus": {"1.0": twice, "1.1": {**twice, "note": "mine"}}}).encode()
    assert render_state(data, parse(data)) == data


def test_a_uuid_comes_to_the_oldest_format_and_stays_out_of_whole_gpus() -> None:
    base = sample("v1-3ce8a4f-mig")
    state = parse(base)
    slot = replace(state.slots[SlotId("1:0")], uuid=DeviceUuid("MIG-a"), profile="1g.10gb")
    raw = json.loads(render_state(base, with_slot(state, slot)))["gpus"]["1:0"]
    assert raw["docker_id"] == raw["uuid"] == "MIG-a"
    assert raw["mig_instance"] == 0
    base = sample("v3-4779337-full")
    state = parse(base)
    slot = replace(state.slots[SlotId("0")], uuid=DeviceUuid("GPU-a"))
    assert render_state(base, with_slot(state, slot)) == base


# --- properties -------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
counts = st.dictionaries(words, st.integers(-3, 9), max_size=3)


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    gpu = draw(st.integers(0, 3))
    mig = draw(st.none() | st.integers(0, 6))
    return Slot(
        id=SlotId(str(gpu) if mig is None else f"{gpu}.{mig}"),
        type=SlotType.PHYSICAL if mig is None else SlotType.MIG,
        gpu_index=gpu,
        mig_index=mig,
        containers=tuple(map(ContainerName, draw(st.lists(words, max_size=3)))),
        users=draw(counts),
        uuid=DeviceUuid(f"MIG-{draw(st.integers(0, 9))}") if mig is not None else None,
        profile="1g.10gb" if mig is not None else None,
    )


@st.composite
def states(draw: st.DrawFn) -> AllocatorState:
    listed = draw(
        st.lists(slots(), max_size=5, unique_by=(lambda s: s.id, lambda s: s.uuid or s.id))
    )
    return AllocatorState(
        slots={slot.id: slot for slot in listed}, mig_enabled=draw(st.booleans()), digest=Digest("")
    )


@given(states(), states())
def test_whatever_was_in_the_file_what_is_written_is_read_again(
    old: AllocatorState, new: AllocatorState
) -> None:
    base = render_state(None, old)
    again = parse(render_state(base, new))
    assert again.slots == new.slots
    assert again.mig_enabled == new.mig_enabled


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["gpus", "mig_enabled", "x"]),
        st.dictionaries(
            st.sampled_from(["0", "1.0", "1:0", "y"]),
            st.dictionaries(
                st.sampled_from(["type", "containers", "users", "uuid", "z"]), json_values
            ),
        )
        | json_values,
    )
)
def test_any_json_is_understood_or_refused_and_never_changed_for_nothing(
    document: dict[str, object],
) -> None:
    base = json.dumps(document).encode()
    try:
        state = parse(base)
    except Malformed:
        return
    assert render_state(base, state) == base


@given(json_values)
def test_a_slot_is_understood_alike_whatever_was_read_before(value: object) -> None:
    """A slot that is as before is not parsed again, and true is no 1, and infinity no null."""
    before = {"users": {"alice": 1}, "reserved_for": None}
    for other in (value, True, 1.0, float("inf"), float("nan"), 0, False, None):
        for slot in (before | {"users": {"alice": other}}, before | {"reserved_for": other}):
            document = {"gpus": {"1.0": slot}}
            fresh = _parse_after({"gpus": {}}, document)
            assert _parse_after({"gpus": {"1.0": before}}, document) == fresh


def _parse_after(before: dict[str, Any], document: dict[str, Any]) -> object:
    """What is understood of a document that is parsed after another one, none of them cached."""
    state_format._parse_document.cache_clear()
    parse({"gpus": {}})
    parse(before)
    try:
        return parse(document).slots
    except Malformed as error:
        return str(error)


@given(st.sampled_from(SAMPLES), st.data())
def test_a_torn_state_is_never_understood(path: Path, data: st.DataObject) -> None:
    whole = path.read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Malformed):
        parse(whole[:length])
    with pytest.raises(Malformed):
        parse(b"\0" * length + whole[length:] if length else b"")


@given(json_values)
def test_what_is_new_is_written_as_the_allocator_writes(value: object) -> None:
    """Byte for byte, whatever the fields hold that ds01d does not know."""
    document: dict[str, Any] = {"gpus": {"0": {"users": {}, "note": value}}, "mig_enabled": False}
    base = json.dumps(document).encode()
    slots = {SlotId("0"): replace(parse(base).slots[SlotId("0")], users={"ada": 1})}
    document["gpus"]["0"]["users"] = {"ada": 1}
    written = render_state(base, replace(parse(base), slots=slots))
    assert written == json.dumps(document, indent=2).encode()


def test_a_state_that_no_server_can_have_is_refused_before_its_names_are_looked_at() -> None:
    """300,000 names in one slot took longer than the watchdog's patience, again and again."""
    flooded = json.loads(json.dumps({"gpus": {"1.1": {"type": "mig_instance"}}}))
    for key, count, listed in (
        ("containers", 300_000, [f"x{number}" for number in range(300_000)]),
        ("containers", 2_001, ["x"] * 2_001),
        ("users", 2_001, {f"x{number}": 1 for number in range(2_001)}),
    ):
        flooded["gpus"]["1.1"] = {"type": "mig_instance", key: listed}
        with pytest.raises(Malformed, match=f"gpus.1.1.{key}: {count} entries, expected at most"):
            parse_state(json.dumps(flooded).encode(), "state")
    many = {f"{number}.1": {"containers": ["x"] * 2_000} for number in range(21)}
    with pytest.raises(Malformed, match="of all slots: 42000 entries, expected at most 40000"):
        parse_state(json.dumps({"gpus": many}).encode(), "state")
    wide: dict[str, object] = {f"{number % 1000}.{number // 1000}": {} for number in range(2_001)}
    with pytest.raises(Malformed, match="gpus: 2001 entries, expected at most 2000"):
        parse_state(json.dumps({"gpus": wide}).encode(), "state")


def test_what_the_largest_server_has_is_none_too_many() -> None:
    slots = {
        f"{gpu}.{mig}": {"containers": [f"x{number}._.1001" for number in range(180)]}
        for gpu in range(8)
        for mig in range(7)
    }
    assert len(parse_state(json.dumps({"gpus": slots}).encode(), "state").slots) == 56


@pytest.mark.parametrize(
    ("count", "understood"), [(10**30, 20_000), (-(10**30), -20_000), (10**4000, 20_000), (3, 3)]
)
def test_a_counter_is_bounded(count: int, understood: int) -> None:
    """Whoever may write the state must not stop the passes of all others with a number."""
    slot = {"type": "mig_instance", "containers": ["ghost"], "users": {"x": count}}
    state = parse_state(json.dumps({"gpus": {"1.0": slot}}).encode(), "state")
    assert state.slots[SlotId("1.0")].users == {"x": understood}
