"""The operations of the daemon, by calls of its socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

import msgspec

from ds01d.documents.explain import Explanation
from ds01d.documents.history import EntryDocument
from ds01d.documents.notices import OwnNoticeRequest, OwnNotices
from ds01d.documents.passes import DriftDocument, PassDocument
from ds01d.documents.quota import QuotaDocument
from ds01d.documents.undo import UndoDocument
from ds01d.documents.usage_report import UsageReport
from ds01d.documents.values import DisplayTime, Document
from ds01d.errors import Refused
from ds01d.model.accounting import ReportQuery
from ds01d.model.drift import Finding
from ds01d.model.primitives import Wall
from ds01d.reconcile.freezing import FreezeResult, ThawResult
from ds01d.service.client import MOST_BOOKINGS, NOT_POSSIBLE, ServiceClient
from ds01d.service.exchange import ServiceRefused, ServiceUnanswered
from ds01d.service.operations import Announce

# The sections of an explanation that are tables.
_ROWS: Final[Mapping[str, type]] = {
    "drifts": tuple[DriftDocument, ...],
    "findings": tuple[Finding, ...],
    "history": tuple[EntryDocument, ...],
}


class RemoteOperations(ServiceClient):
    """What `OwnOperations` does, done by the daemon."""

    def plan_pass(self) -> PassDocument:
        return msgspec.convert(self._make_call("Plan")["report"], PassDocument)

    def explain_subject(self, name: str) -> Explanation:
        explanation = self._make_call("Explain", subject=name)["explanation"]
        return Explanation(
            at=msgspec.convert(explanation["at"], DisplayTime),
            troubles=tuple(explanation["troubles"]),
            documents=tuple(map(_parse_sections, explanation["documents"])),
        )

    def run_passes(self, timeout_s: float, announce: Announce) -> PassDocument:
        parameters = {"wait": True, "timeout_s": timeout_s} if timeout_s else {}
        with ExitStack() as shown:
            for reply in self.stream("Reconcile", parameters):
                shown.close()
                if reply["report"] is not None:
                    return msgspec.convert(reply["report"], PassDocument)
                shown.enter_context(announce(reply["waiting"]))
        raise ServiceUnanswered("the passes ended without an answer")

    def freeze_subject(
        self, subject: str | None, seconds: float | None, reason: str
    ) -> FreezeResult:
        reply = self._make_call("Freeze", subject=subject, seconds=seconds, reason=reason)
        return msgspec.convert(reply, FreezeResult)

    def thaw_subject(self, subject: str | None, *, engine: bool) -> ThawResult:
        return msgspec.convert(
            self._make_call("Thaw", subject=subject, engine=engine or None), ThawResult
        )

    def undo_entry(self, entry: str, *, dry_run: bool) -> UndoDocument:
        reply = self._make_call("Undo", entry=entry, dry_run=dry_run or None)
        return msgspec.convert(reply["undo"], UndoDocument)

    def rejoin_fleet(self, *, as_new: bool) -> str:
        """Have the daemon's host take part in its fleet again; gives what was done."""
        return str(self._make_call("FleetRejoin", as_new=as_new or None)["done"])

    def forget_host(self, host: str) -> str:
        """Have the store of the fleet forget another host; gives what was forgotten."""
        return str(self._make_call("FleetForget", host=host)["done"])

    def thaw_fleet(self) -> str:
        """Have the daemon trust the store of its fleet as it is; gives what is trusted."""
        return str(self._make_call("FleetThaw")["done"])

    def read_usage(self, query: ReportQuery) -> UsageReport:
        """A report of the accounting; of many bookings it is made by several calls."""
        report = self._read_part(query)
        # One reply is bounded, so that no caller makes ds01d build one without an end.
        while report.older_than is not None and (
            query.most is None or len(report.bookings) < query.most
        ):
            # No more than are wanted: `older_than` is the ID of the last one of the reply.
            most = None if query.most is None else query.most - len(report.bookings)
            part = self._read_part(replace(query, before=report.older_than, most=most))
            report = msgspec.structs.replace(
                report,
                bookings=(*report.bookings, *part.bookings),
                older_than=part.older_than,
            )
        return report

    def read_quota(self, user: str | None) -> QuotaDocument:
        """The quota of a user; None: of the caller."""
        quota = self._make_call("Quota", user=user)["quota"]
        return msgspec.convert(quota, QuotaDocument)

    def read_notices(self, user: str | None) -> OwnNotices:
        """The notices of a user and their requests for one; None: of the caller."""
        return msgspec.convert(self._make_call("Notices", user=user), OwnNotices)

    def withdraw_notices(self, user: str | None) -> Sequence[OwnNoticeRequest]:
        """End a user's requests for notices; gives them. None: of the caller."""
        reply = self._make_call("WithdrawNotices", user=user)
        return msgspec.convert(reply["requests"], tuple[OwnNoticeRequest, ...])

    def _read_part(self, query: ReportQuery) -> UsageReport:
        reply = self._make_call(
            "Report",
            since=query.since,
            until=query.until,
            by=query.by.value,
            user=query.user,
            group=query.group,
            slot=query.slot,
            older_than=query.before,
            most=None if query.most is None else min(query.most, MOST_BOOKINGS),
        )
        return msgspec.convert(reply["report"], UsageReport)

    def _make_call(self, method: str, **parameters: object) -> dict[str, Any]:
        try:
            return self.call(method, parameters)
        except ServiceRefused as refusal:
            # The error of `OwnOperations`, so that a command exits alike both ways.
            if refusal.parameters.get("code") != NOT_POSSIBLE:
                raise
            raise Refused(str(refusal.parameters["detail"])) from refusal


def _parse_sections(document: Mapping[str, Any]) -> dict[str, Document]:
    return {
        name: msgspec.convert(section, _ROWS[name])
        if name in _ROWS and isinstance(section, list)
        else _parse_times(section)
        for name, section in document.items()
    }


def _parse_times(value: object) -> Document:
    """The value with its moments, which are sent as objects with one key."""
    match value:
        case {"at": float() | int() as at, **rest} if not rest:
            return DisplayTime(Wall(at))
        case dict():
            return {name: _parse_times(part) for name, part in value.items()}
        case list():
            return [_parse_times(part) for part in value]
        case bool() | int() | float() | str():
            return value
        case _:
            return None
