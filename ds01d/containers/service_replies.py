"""Replies and errors of io.github.ds01.Containers, as the interface describes them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ds01d.containers.listing import ContainerListRow
from ds01d.containers.preview import CreationPlan
from ds01d.decide.short_names import split_name
from ds01d.errors import ConfigError, Ds01Error, Malformed, NotPermitted, Refused
from ds01d.model.creation import Created, Order
from ds01d.service.client import CONTAINERS, INTERFACE
from ds01d.service.exchange import ServiceRefused
from ds01d.service.varlink import VarlinkError


def describe_error(error: Ds01Error) -> VarlinkError:
    """An error as this interface has it."""
    if isinstance(error, ServiceRefused):  # of a booking, by the worker
        error = VarlinkError(error.error, **error.parameters)
    if isinstance(error, VarlinkError):
        name = error.error.removeprefix(f"{INTERFACE}.")
        if name == error.error:
            return error  # one of the standard's
        if name == "Refused":
            reason = "{code} ({detail})".format_map(error.parameters)
            return VarlinkError(f"{CONTAINERS}.Refused", reason=reason)
        return VarlinkError(f"{CONTAINERS}.{name}", **error.parameters)
    if isinstance(error, Refused | Malformed | NotPermitted | ConfigError):
        return VarlinkError(f"{CONTAINERS}.Refused", reason=str(error))
    return VarlinkError(f"{CONTAINERS}.Unavailable", reason=str(error))


def encode_creation(created: Created, order: Order, warnings: Sequence[str]) -> object:
    """The reply to a creation, as the interface describes it."""
    return {
        "created": {
            "name": created.name,
            "id": created.id,
            "image": order.image,
            "slots": [booking.slot for booking in created.booked],
            "is_started": order.start,
        },
        "plan": None,
        "pull": None,
        "waiting": None,
        "warnings": warnings,
    }


def encode_plan(plan: CreationPlan) -> object:
    """The reply to a dry run."""
    return {
        "created": None,
        "plan": asdict(plan),
        "pull": None,
        "waiting": None,
        "warnings": [],
    }


def encode_row(row: ContainerListRow) -> dict[str, object]:
    """A container as the interface describes it."""
    return {
        "name": row.name,
        "short_name": split_name(row.name)[0],
        "id": row.id,
        "user": row.user,
        "state": row.state.value,
        "slots": None if row.slots is None else list(row.slots),
        "framework": row.framework,
        "created": row.created,
        "started": row.started,
        "finished": row.finished,
    }
