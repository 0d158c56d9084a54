"""The text of an inventory is read back as it was written, and damaged text gives no device."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.inventory_places import device_positions, inventory_fingerprint, parse_fingerprint
from tests.support.build import gpu, inventory, mig, two_by_two, whole


@given(st.dictionaries(st.integers(0, 15), st.sets(st.integers(0, 6), max_size=7), max_size=8))
def test_a_fingerprint_is_read_back(layout: dict[int, set[int]]) -> None:
    devices = [gpu(index, mig=bool(migs)) for index, migs in layout.items()]
    parts = [mig(index, place) for index, migs in layout.items() for place in migs]
    there = inventory(*devices, *parts)
    fingerprint = inventory_fingerprint(there)
    assert dict(parse_fingerprint(fingerprint)) == device_positions(there)
    backwards = inventory(*reversed(devices), *reversed(parts))
    assert inventory_fingerprint(backwards) == fingerprint


def test_devices_in_other_places_are_another_inventory() -> None:
    assert inventory_fingerprint(two_by_two()) != inventory_fingerprint(whole(2))


@given(st.text())
def test_any_other_text_is_read_without_an_error(text: str) -> None:
    for (index, place), uuid in parse_fingerprint(text):
        assert index >= 0
        assert place is None or place >= 0
        assert uuid
