"""The calls that see or change the whole of the books, served in the worker's thread.

Everybody may ask what status.json shows to everybody; more of a container (processes, labels,
paths, evidence, history) is for its owner and for operators. Changes are for operators.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Final

import msgspec

from ds01d.config import Config
from ds01d.decide.freezes import is_valid_reason
from ds01d.decide.ownership import choose_owner
from ds01d.documents.explain import Explanation, add_fleet, explain_subject
from ds01d.documents.history import HistoryRow
from ds01d.documents.passes import DriftDocument, build_pass_document
from ds01d.documents.values import Section
from ds01d.model.primitives import ContainerName, SlotId
from ds01d.reconcile.ports import World
from ds01d.reconcile.report import Report
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import Handler
from ds01d.service.operations import OwnOperations, ReadPublished
from ds01d.service.reconciling import ReconcileCalls
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, require_operator
from ds01d.service.varlink import P, Parameters, invalid_parameter, parse_parameters
from ds01d.text import make_printable

PLAN_EVERY_S: Final = 5.0
"""Who is no operator gets one that is so old at most: it takes a sweep's time of the worker."""
RECONCILE_S: Final = 600.0
# What status.json shows to everybody, too.
_PUBLIC_SECTIONS: Final = frozenset(
    {
        "subject",
        "type",
        "slot",
        "verdict",
        "holders",
        "drifts",
        "findings",
        "books",
        "freezes",
        "troubles",
        "sources",
    }
)

_Text = Annotated[
    str, msgspec.Meta(max_length=256)
]  # it gets into logs, and is compared with names
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=10 * 365 * 86400)]


class SubjectParameters(Parameters, frozen=True):
    subject: _Text


class ReconcileParameters(Parameters, frozen=True):
    wait: bool | None = None
    timeout_s: _Seconds | None = None


class FreezeParameters(Parameters, frozen=True):
    subject: _Text | None = None
    seconds: _Seconds | None = None
    reason: str | None = None


class ThawParameters(Parameters, frozen=True):
    subject: _Text | None = None
    engine: bool | None = None


class UndoParameters(Parameters, frozen=True):
    entry: _Text
    dry_run: bool | None = None


class OperationCalls:
    """Serves them for one configuration. `reconciles` has the sweeps that are asked for."""

    def __init__(
        self,
        config: Config,
        world: World,
        read_published: ReadPublished,
        reconciles: ReconcileCalls,
    ) -> None:
        self._config, self._world = config, world
        self._read_published, self._reconciles = read_published, reconciles
        self._planned: tuple[float, Report, tuple[HistoryRow, ...] | str] | None = None
        self._has_changes = False
        self.handlers: Final[Mapping[str, Handler]] = {
            f"{INTERFACE}.Plan": self._plan_pass,
            f"{INTERFACE}.Explain": self._explain_subject,
            f"{INTERFACE}.Reconcile": self._queue_reconcile,
            f"{INTERFACE}.Freeze": self._freeze_subject,
            f"{INTERFACE}.Thaw": self._thaw_subject,
            f"{INTERFACE}.Undo": self._undo_entry,
        }

    def take_changes(self) -> bool:
        """Something was changed since the last call that a sweep has to look at."""
        has_changes, self._has_changes = self._has_changes, False
        return has_changes

    def _operations_of(self, peer: Peer) -> OwnOperations:
        return OwnOperations(
            replace(self._world, actor=peer.actor),
            self._config,
            make_printable(peer.actor.short)[:64],
            read_published=self._read_published,
            read_history=self._world.state_dir.read_history,
            sleep=time.sleep,
        )

    def _plan_pass(self, request: PendingCall) -> object:
        parse_parameters(request.call, Parameters)
        report, _ = self._make_plan(request.peer)
        document = build_pass_document(report, self._config)
        drifts = _hide_evidence(document.drifts, report, request.peer)
        return {"report": msgspec.structs.replace(document, drifts=drifts)}

    def _explain_subject(self, request: PendingCall) -> object:
        name = parse_parameters(request.call, SubjectParameters).subject
        report, history = self._make_plan(request.peer)
        explanation = explain_subject(name, report, self._config, history, request.peer.uid)
        published, _ = self._read_published(report.decision.snapshot.now.wall)
        explanation = add_fleet(explanation, published)
        return {"explanation": hide_details(explanation, report, request.peer)}

    def _make_plan(self, peer: Peer) -> tuple[Report, tuple[HistoryRow, ...] | str]:
        # Decision 189: a plan costs a sweep's time of the worker, so others share the last one.
        if self._planned is None or (
            peer.is_operator or time.monotonic() - self._planned[0] > PLAN_EVERY_S
        ):
            operations = self._operations_of(peer)
            report, history = operations.plan_report(), operations.read_rows()
            self._planned = (time.monotonic(), report, history)
        return self._planned[1:]

    def _queue_reconcile(self, request: PendingCall) -> None:
        wanted = _parse_of_operator(request, ReconcileParameters)
        timeout_s = wanted.timeout_s or RECONCILE_S
        # Not made here: passes that wait for time would hold up every other call.
        self._reconciles.add_call(request, timeout_s if wanted.wait else 0.0)

    def _freeze_subject(self, request: PendingCall) -> object:
        wanted = _parse_of_operator(request, FreezeParameters)
        reason = wanted.reason or ""
        if not is_valid_reason(reason):
            raise invalid_parameter("reason")
        operations = self._operations_of(request.peer)
        frozen = operations.freeze_subject(wanted.subject, wanted.seconds, reason)
        self._has_changes = True
        return frozen

    def _thaw_subject(self, request: PendingCall) -> object:
        wanted = _parse_of_operator(request, ThawParameters)
        # An engine is trusted as a whole: with a subject it is unclear what is meant.
        if wanted.engine and wanted.subject is not None:
            raise invalid_parameter("subject")
        thawed = self._operations_of(request.peer).thaw_subject(
            wanted.subject, engine=bool(wanted.engine)
        )
        self._has_changes = True
        return thawed

    def _undo_entry(self, request: PendingCall) -> object:
        wanted = _parse_of_operator(request, UndoParameters)
        undo = self._operations_of(request.peer).undo_entry(
            wanted.entry, dry_run=bool(wanted.dry_run)
        )
        # A dry run changes nothing, so no sweep has to follow it.
        self._has_changes |= undo.undone
        return {"undo": undo}


def _parse_of_operator(request: PendingCall, kind: type[P]) -> P:
    require_operator(request.peer)
    return parse_parameters(request.call, kind)


def hide_details(explanation: Explanation, report: Report, peer: Peer) -> Explanation:
    """The explanation without what only the owner of its subject and operators may see."""
    documents = tuple(_hide_sections(document, report, peer) for document in explanation.documents)
    return msgspec.structs.replace(explanation, documents=documents)


def _hide_sections(document: Section, report: Report, peer: Peer) -> Section:
    subject, index = str(document["subject"]), report.decision.index
    names = [ContainerName(subject)]
    if document["type"] == "slot" and index is not None:
        # Processes and evidence of a slot are those of all who share it.
        names = [*index.table.slots[SlotId(subject)].containers]
    if peer.is_operator or (names and all(_is_owner(peer, name, report) for name in names)):
        return document
    shown = {name: part for name, part in document.items() if name in _PUBLIC_SECTIONS}
    drifts, verdict = document["drifts"], document.get("verdict")
    if isinstance(drifts, tuple):
        shown["drifts"] = _hide_evidence(drifts, report, peer)
    # Evidence has processes and paths, which only its owner and operators may see.
    if isinstance(verdict, dict):
        shown["verdict"] = verdict | {"evidence": []}
    return shown


def _hide_evidence(
    drifts: tuple[DriftDocument, ...], report: Report, peer: Peer
) -> tuple[DriftDocument, ...]:
    return tuple(
        drift
        if peer.is_operator or (drift.container and _is_owner(peer, drift.container, report))
        else msgspec.structs.replace(drift, evidence=())
        for drift in drifts
    )


def _is_owner(peer: Peer, name: ContainerName, report: Report) -> bool:
    index = report.decision.index
    if index is None or index.find_user(name) != peer.login:
        return False
    container = index.containers.get(name)
    if container is None:
        return True
    # Anybody may book a container that is nobody's: the booking is theirs, the container is not.
    labels = {} if container.is_unnamed else container.labels
    users, uids = {peer.uid: peer.login}, {peer.login: peer.uid}
    return choose_owner(name, None, labels, users, uids) == peer.login
