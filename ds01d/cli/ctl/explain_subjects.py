"""All that is known of one container or one slot, as a document. Decides nothing, asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ds01d.cli.ctl import explain_checkpoint, explain_sections
from ds01d.cli.ctl import report as reports
from ds01d.cli.ctl.explain_sections import Section
from ds01d.cli.ctl.history_view import HistoryRow, row_document
from ds01d.cli.ctl.status_view import freeze_document
from ds01d.cli.output.blocks import Document
from ds01d.config import Config
from ds01d.decide.index import BooksIndex
from ds01d.decide.usage import find_uses, users_by_slot
from ds01d.model.books import BadRecord, Record
from ds01d.model.containers import Container, Engine
from ds01d.model.devices import GpuProcess, Inventory
from ds01d.model.drift import Finding, GatedDrift
from ds01d.model.primitives import ContainerName, SlotId, Source, Unknown
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile.reconciler import Report

LAST_DEEDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectIndex:
    """What one dry pass saw and decided, to be asked about single names.

    `deeds`: the history, or why it cannot be read.
    """

    report: Report
    config: Config
    deeds: tuple[HistoryRow, ...] | str

    @property
    def seen(self) -> Snapshot:
        return self.report.decision.snapshot

    @property
    def view(self) -> BooksIndex | None:
        return self.report.decision.index

    @property
    def engine(self) -> Engine | None:
        return self.seen.docker if isinstance(self.seen.docker, Engine) else None

    @property
    def records(self) -> Mapping[ContainerName, Record | BadRecord]:
        return {} if isinstance(self.seen.metadata, Unknown) else self.seen.metadata

    def slots(self) -> frozenset[SlotId]:
        """Every slot there is, or should be."""
        return frozenset(self.view.table.slots) if self.view is not None else frozenset()

    def names(self) -> frozenset[ContainerName]:
        """Every container that a source or the memory names."""
        named = {*self.report.decision.verdicts, *self.records, *self.report.memory.identities}
        if self.engine is not None:
            named |= self.engine.by_name.keys()
        if self.view is not None:
            named |= self.view.booked_slots.keys()
        return frozenset(named)

    def container(self, name: ContainerName) -> Section:
        """Everything about a container."""
        there = self.engine.by_name.get(name) if self.engine is not None else None
        view, memory = self.view, self.report.memory
        own = view.find_booked_slots(name) if view is not None else frozenset()
        return {
            "subject": name,
            "type": "container",
            "verdict": self._verdict(name, there),
            **self._reported((name,)),
            "books": self._books(name),
            "metadata": self._unless(
                self.seen.metadata, explain_sections.record_section(self.records.get(name))
            ),
            "docker": self._unless(
                self.seen.docker,
                None if there is None else explain_sections.container_section(there),
            ),
            "limits": None if view is None else explain_sections.limits_section(name, view),
            "processes": self._processes(there, own),
            "operations": explain_sections.attempt_section(name, self.seen.operations),
            "memory": explain_checkpoint.container_checkpoint(name, there, memory, self.seen.now),
            **self._host((name, *own)),
        }

    def slot(self, name: SlotId, view: BooksIndex) -> Section:
        """Everything about a slot of the view's table."""
        table, slot = view.table, view.table.slots[name]
        processes = view.find_processes(name)
        holders = tuple(dict.fromkeys(slot.containers))
        return {
            "subject": name,
            "type": "slot",
            "slot": {
                "type": slot.type.value,
                "profile": slot.profile,
                "uuid_in_state": slot.uuid,
                "device": table.device_of.get(name),
                "device_gone": table.dead.get(name),
                "was_called": [old for old, new in table.moved.items() if new == name],
                "users": dict(slot.users),
                "used_by": self._users(name, holders, view),
            },
            "holders": [
                {"container": one, "user": view.find_user(one), "verdict": self._say(one)}
                for one in holders
            ],
            **self._reported((name,)),
            "processes": self._unless(
                processes,
                explain_sections.process_rows(processes, view)
                if isinstance(processes, tuple)
                else [],
            ),
            "memory": explain_checkpoint.slot_checkpoint(name, self.report.memory, self.seen.now),
            **self._host((name, *holders)),
        }

    def _users(
        self, name: SlotId, holders: tuple[ContainerName, ...], view: BooksIndex
    ) -> tuple[str, ...]:
        """Who has or uses the slot's device without being booked there."""
        uses = find_uses(self.seen, self.report.memory, self.config)
        slots = {name: (view.table.device_of.get(name), holders)}
        return users_by_slot(uses, slots, self.seen.gpu).get(name, ())

    def _verdict(self, name: ContainerName, there: Container | None) -> Section:
        said = self.report.decision.verdicts.get(name)
        if said is not None:
            return explain_sections.verdict_section(said, self.seen.now)
        return {"says": None, "words": self._say(name, there), "slots": [], "evidence": []}

    def _say(self, name: ContainerName, there: Container | None = None) -> str:
        said = self.report.decision.verdicts.get(name)
        if said is not None:
            return explain_sections.describe_verdict(said, self.seen.now)
        state = self.report.sources[Source.STATE]
        if state != "ok":
            return f"not decided: state: {state}"
        if there is not None:
            return "foreign: no DS01 container, so nothing of it is ever touched"
        return "none: no source names it any more, only the memory does"

    def _books(self, name: ContainerName) -> Section:
        if self.view is None:
            return {"unknown": self.report.sources[Source.STATE]}
        return {
            "booked_in": sorted(self.view.booked_slots.get(name, ())),
            "added_meanwhile": sorted(self.view.slots_to_merge.get(name, ())),
            "user": self.view.find_user(name),
        }

    def _processes(self, there: Container | None, own: Iterable[SlotId]) -> Document:
        """Processes on the slots that are booked, and those of the container elsewhere."""
        gpu, view = self.seen.gpu, self.view
        if isinstance(gpu, Unknown):
            return {"unknown": gpu.reason}
        if view is None or not isinstance(gpu, Inventory):
            return []
        on_slots: list[GpuProcess] = []
        for slot in sorted(own):
            there_now = view.find_processes(slot)
            if isinstance(there_now, Unknown):
                return {"unknown": there_now.reason}
            on_slots += there_now or ()
        elsewhere = (p for p in gpu.processes if there is not None and p.container == there.id)
        return explain_sections.process_rows(dict.fromkeys((*on_slots, *elsewhere)), view)

    def _reported(self, subjects: tuple[str, ...]) -> Section:
        now = self.seen.now
        return {
            "drifts": [reports.drift_document(one, now) for one in self.drifts(subjects)],
            "findings": [reports.finding_document(one) for one in self.findings(subjects)],
        }

    def _host(self, subjects: tuple[str, ...]) -> Section:
        memory, now = self.report.memory, self.seen.now
        return {
            "freezes": [
                freeze_document(one) for one in explain_checkpoint.freezes_on(subjects, memory, now)
            ],
            "troubles": [*self.report.troubles],
            "waits": explain_checkpoint.host_checkpoint(memory, now),
            "sources": reports.source_states(self.report, self.config),
            "history": {"unknown": self.deeds}
            if isinstance(self.deeds, str)
            else [row_document(one) for one in self.last_deeds(subjects[:1])],
        }

    def drifts(self, subjects: Iterable[str]) -> tuple[GatedDrift, ...]:
        """The drifts on any of the subjects."""
        wanted = set(subjects)
        return tuple(
            one
            for one in self.report.drifts
            if wanted & {one.drift.container, one.drift.slot}
            or any(wanted & set(pair) for pair in one.drift.taken | one.drift.given)
        )

    def findings(self, subjects: Iterable[str]) -> tuple[Finding, ...]:
        """The findings on any of the subjects."""
        wanted = set(subjects)
        return tuple(one for one in self.report.findings if wanted & {one.container, one.slot})

    def last_deeds(self, subjects: Iterable[str]) -> tuple[HistoryRow, ...]:
        """The newest deeds about any of the subjects."""
        wanted = tuple(subjects)
        deeds = () if isinstance(self.deeds, str) else self.deeds
        about = [one for one in deeds if any(one.about(subject) for subject in wanted)]
        return tuple(about[-LAST_DEEDS:])

    @staticmethod
    def _unless(source: object, answer: Document) -> Document:
        return {"unknown": source.reason} if isinstance(source, Unknown) else answer
