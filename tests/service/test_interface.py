"""The description of the interface says what the code takes and gives."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
import pytest

from ds01d.documents.notices import OwnNotice, OwnNoticeRequest
from ds01d.documents.quota import QuotaDocument
from ds01d.model.allocation import Allocated
from ds01d.model.primitives import BookingId, ContainerName, SlotId, UserName
from ds01d.service import (
    activity_calls,
    booking_messages,
    fleet_calls,
    operations_calls,
    quota_calls,
    report_calls,
)
from ds01d.service.allocator_client import parse_booking
from ds01d.service.client import INTERFACE
from ds01d.service.interface import read_description

PARAMETERS: Mapping[str, type[msgspec.Struct]] = {
    "Allocate": booking_messages.AllocateParameters,
    "Release": booking_messages.ReleaseParameters,
    "MarkStopped": booking_messages.ContainerParameters,
    "Quota": quota_calls.UserParameters,
    "Notices": quota_calls.UserParameters,
    "WithdrawNotices": quota_calls.UserParameters,
    "Explain": operations_calls.SubjectParameters,
    "Reconcile": operations_calls.ReconcileParameters,
    "Freeze": operations_calls.FreezeParameters,
    "Thaw": operations_calls.ThawParameters,
    "Undo": operations_calls.UndoParameters,
    "FleetRejoin": fleet_calls.RejoinParameters,
    "FleetForget": fleet_calls.ForgetParameters,
    "Activity": activity_calls.ActivityParameters,
    "Report": report_calls.ReportParameters,
}


def find_members(begin: str) -> dict[str, str]:
    """The members of a type, or the parameters of a method, with their types."""
    text = re.sub(r"#.*", "", read_description(INTERFACE))
    (members,) = re.findall(rf"\b{begin}\s*\(([^()]*)\)", text)
    return dict(part.split(": ") for part in re.split(r",\s*", members.strip()) if part)


@pytest.mark.parametrize("method", PARAMETERS)
def test_a_method_takes_what_is_described(method: str) -> None:
    described = find_members(f"method {method}")
    fields = msgspec.structs.fields(PARAMETERS[method])
    assert list(described) == [field.name for field in fields]
    for field in fields:
        assert described[field.name].startswith("?") is not field.required, field.name


def test_a_quota_has_what_is_described() -> None:
    fields = {*QuotaDocument.__struct_encode_fields__}
    assert find_members("type UserQuota").keys() == fields | {
        "max_slots",
        "booked",
        "gpus",
        "max_gpus",
    }


def test_notices_have_what_is_described() -> None:
    assert find_members("type Notice") == {
        "type": "string",
        "message": "string",
        "created_at": "string",
        "container": "?string",
        "slots": "[]string",
    }
    assert find_members("type Notice").keys() == {*OwnNotice.__struct_encode_fields__}
    assert find_members("type NoticeRequest").keys() == {*OwnNoticeRequest.__struct_encode_fields__}


def test_a_booking_has_what_is_described() -> None:
    second = Allocated(
        container=ContainerName("a"), user=UserName("u"), slot=SlotId("1.1"), docker_id="MIG-1"
    )
    first = Allocated(
        container=ContainerName("a"),
        user=UserName("u"),
        slot=SlotId("1.0"),
        docker_id="MIG-0",
        more=(second,),
        id=BookingId("r-0123456789ab"),
    )
    encoded = booking_messages.encode_booking(first)
    assert encoded.keys() == find_members("type Booking").keys()
    slots = encoded["slots"]
    assert isinstance(slots, list)
    assert all(slot.keys() == find_members("type BookedSlot").keys() for slot in slots)
    assert parse_booking(encoded) == first
