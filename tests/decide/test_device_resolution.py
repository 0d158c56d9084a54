"""Which devices a request means, and which it may mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.device_resolution import (
    DeviceIndex,
    index_devices,
    names_devices,
    possible_devices,
    resolve_devices,
)
from ds01d.model.containers import DeviceRef, GpuRequestKind, RefKind, Request
from ds01d.model.primitives import Source, Unknown
from tests.support.build import ALL, books, count, gpu, inventory, mig, named, slot

HOST = inventory(
    gpu(0, uuid="GPU-8f3c0000", mig=True, pci="0000:3b:00"),
    gpu(1, uuid="GPU-8a000000", pci="0001:3b:00"),
    mig(0, 0, "MIG-41aa", "GPU-8f3c0000"),
    mig(0, 1, "MIG-41bb", "GPU-8f3c0000"),
)
STATE = books(slot("0.0", uuid="MIG-41aa"), slot("0.1", uuid="MIG-41bb"))


Meaning = tuple["set[str] | None", bool]


def meaning(request: Request, index: DeviceIndex | None) -> Meaning:
    devices, lasting = resolve_devices(request, index)
    return None if devices is None else set(devices), lasting


def ref(kind: RefKind, text: str) -> Request:
    return Request(ask=GpuRequestKind.NAMED, devices=(DeviceRef(kind=kind, text=text),))


@pytest.mark.parametrize(
    ("kind", "text", "fits"),
    [
        (RefKind.SHORT_UUID, "GPU-8f", {"GPU-8f3c0000"}),
        (RefKind.SHORT_UUID, "GPU-8", {"GPU-8f3c0000", "GPU-8a000000"}),
        (RefKind.SHORT_UUID, "GPU-9", set()),
        (RefKind.SHORT_UUID, "MIG-41a", {"MIG-41aa"}),
        (RefKind.SHORT_UUID, "MIG-41", {"MIG-41aa", "MIG-41bb"}),
        (RefKind.PCI, "0000:3b:00.0", {"GPU-8f3c0000"}),
        (RefKind.PCI, "00000001:3b:00.0", {"GPU-8a000000"}),
        (RefKind.PCI, "3b:00.0", {"GPU-8f3c0000"}),  # domain 0, as the library has it
        (RefKind.PCI, "0000:3c:00.0", set()),
        (RefKind.INDEX, "1", {"GPU-8a000000"}),
        (RefKind.MIG_INDEX, "0:1", {"MIG-41bb"}),
        (RefKind.MIG_INDEX, "0:7", set()),
        (RefKind.MINOR, "0", {"GPU-8f3c0000"}),
    ],
)
def test_a_reference_is_its_device_where_exactly_one_fits(
    kind: RefKind, text: str, fits: set[str]
) -> None:
    request, index = ref(kind, text), index_devices(HOST, STATE)
    devices, lasting = meaning(request, index)
    assert devices == (fits if len(fits) == 1 else None)
    assert lasting == (kind in {RefKind.SHORT_UUID, RefKind.PCI})
    assert possible_devices(request, index) == fits  # of several, each may be in use


def test_without_an_inventory_only_a_whole_uuid_is_known() -> None:
    unknown = Unknown(source=Source.NVML, reason="down")
    index = index_devices(unknown, STATE)
    assert index is None
    assert meaning(named("MIG-41aa"), index) == ({"MIG-41aa"}, True)
    for request in (ref(RefKind.SHORT_UUID, "MIG-41a"), named("0:1"), count(1), ALL):
        assert meaning(request, index)[0] is None
        assert possible_devices(request, index) == set()


def test_without_nvml_the_slots_are_the_inventory() -> None:
    index = index_devices(None, books(slot("0"), slot("1.0", uuid="MIG-41aa")))
    assert meaning(ref(RefKind.SHORT_UUID, "MIG-41"), index)[0] == {"MIG-41aa"}
    assert meaning(named("0"), index)[0] == {"slot:0"}


def test_of_a_request_that_is_not_understood_what_is_understood_may_be_meant() -> None:
    index = index_devices(HOST, STATE)
    odd = Request(ask=GpuRequestKind.UNCLEAR, unclear=("x",), devices=named("0:1").devices, count=2)
    assert meaning(odd, index) == (None, False)
    assert possible_devices(odd, index) == {"MIG-41bb", "GPU-8f3c0000", "GPU-8a000000"}


def test_what_is_named_beside_a_count_is_meant_too() -> None:
    index = index_devices(HOST, STATE)
    both = replace(count(1), devices=named("0:1").devices)
    assert meaning(both, index) == ({"GPU-8f3c0000", "MIG-41bb"}, False)
    assert possible_devices(both, index) == {"GPU-8f3c0000", "MIG-41bb"}
    one_is_gone = replace(count(1), devices=named("0:7").devices)
    assert meaning(one_is_gone, index) == (None, False)
    assert possible_devices(one_is_gone, index) == {"GPU-8f3c0000"}


def test_a_count_and_all() -> None:
    index = index_devices(HOST, STATE)
    assert meaning(count(2), index) == ({"GPU-8f3c0000", "GPU-8a000000"}, False)
    assert meaning(count(3), index)[0] is None
    assert possible_devices(count(3), index) == {"GPU-8f3c0000", "GPU-8a000000"}
    assert meaning(ALL, index)[0] == set(index.at.values() if index else ())
    assert possible_devices(ALL, index) == set()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (RefKind.INDEX, "9" * 100_000),
        (RefKind.MIG_INDEX, f"0:{'9' * 100_000}"),
        (RefKind.MIG_INDEX, f"{'9' * 4_301}:0"),
    ],
)
def test_an_index_of_thousands_of_digits_is_no_device(kind: RefKind, text: str) -> None:
    """As an older version may have kept it in its cache."""
    index = index_devices(HOST, STATE)
    assert possible_devices(ref(kind, text), index) == frozenset()
    assert meaning(ref(kind, text), index) == (None, False)


# --- what needs no second look ------------------------------------------------------------------

KINDS_AND_TEXTS = st.one_of(
    st.tuples(st.just(RefKind.UUID), st.sampled_from(["GPU-8f3c0000", "MIG-41aa", "MIG-gone"])),
    st.tuples(st.just(RefKind.SHORT_UUID), st.sampled_from(["GPU-8f", "MIG-41"])),
    st.tuples(st.just(RefKind.INDEX), st.sampled_from(["0", "1"])),
    st.tuples(st.just(RefKind.MIG_INDEX), st.sampled_from(["0:0", "0:1"])),
    st.tuples(st.just(RefKind.MINOR), st.just("0")),
    st.tuples(st.just(RefKind.PCI), st.just("3b:00.0")),
)
ASKS = st.builds(
    lambda ask, refs, number: Request(
        ask=ask,
        devices=tuple(DeviceRef(kind=kind, text=text) for kind, text in refs),
        count=number if ask in (GpuRequestKind.COUNT, GpuRequestKind.UNCLEAR) else 0,
    ),
    st.sampled_from(list(GpuRequestKind)),
    st.lists(KINDS_AND_TEXTS, max_size=3),
    st.integers(0, 2),
)
RENUMBERED = inventory(
    gpu(0, uuid="GPU-8a000000", pci="0000:3b:00"),
    gpu(1, uuid="GPU-8f3c0000", mig=True, pci="0001:3b:00"),
    mig(1, 0, "MIG-41bb", "GPU-8f3c0000"),
)


@given(ASKS)
def test_what_is_published_for_good_means_the_same_by_every_inventory(request: Request) -> None:
    """A booking does not resolve it again (decision 215)."""
    meanings = {
        possible_devices(request, index)
        for index in (None, index_devices(HOST, STATE), index_devices(RENUMBERED, STATE))
    }
    if names_devices(request):
        assert len(meanings) == 1


@given(ASKS)
def test_the_uuids_that_a_container_keeps_are_what_its_request_means(request: Request) -> None:
    """They are found once for each container, and stand for the request in every pass."""
    uuids = request.list_uuids()
    assert (uuids is not None) == (names_devices(request) and not request.count)
    if uuids is not None:
        assert meaning(request, index_devices(HOST, STATE)) == (set(uuids), True)
        assert list(uuids) == sorted(possible_devices(request, None))


def test_only_whole_uuids_mean_the_same_by_every_inventory() -> None:
    assert names_devices(ref(RefKind.UUID, "MIG-41aa"))
    assert not names_devices(ref(RefKind.SHORT_UUID, "MIG-41"))
    assert not names_devices(ref(RefKind.INDEX, "0"))
    assert not names_devices(replace(ref(RefKind.UUID, "GPU-8f3c0000"), ask=GpuRequestKind.UNCLEAR))
