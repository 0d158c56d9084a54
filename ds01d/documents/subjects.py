"""Everything about one container or one slot, as a document. Decides and asks nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ds01d.config import Config
from ds01d.decide.index import BooksIndex
from ds01d.decide.usage import find_uses, users_by_slot
from ds01d.documents import checkpoint as checkpoint_documents
from ds01d.documents import sections
from ds01d.documents.device_access import device_section
from ds01d.documents.history import HistoryRow, build_entry_document
from ds01d.documents.passes import build_drift_document, describe_sources
from ds01d.documents.user_limits import limits_section
from ds01d.documents.values import Document, Section
from ds01d.model.books import BadRecord, Record
from ds01d.model.containers import Container, Engine
from ds01d.model.devices import GpuProcess, Inventory
from ds01d.model.drift import Finding, GatedDrift
from ds01d.model.primitives import ContainerName, SlotId, Source, Unknown
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile.report import Report

LAST_ENTRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectIndex:
    """What one dry pass observed and decided, by name.

    `history`: its rows, or why it cannot be read.
    """

    report: Report
    config: Config
    history: tuple[HistoryRow, ...] | str

    @property
    def snapshot(self) -> Snapshot:
        return self.report.decision.snapshot

    @property
    def index(self) -> BooksIndex | None:
        return self.report.decision.index

    @property
    def engine(self) -> Engine | None:
        return self.snapshot.docker if isinstance(self.snapshot.docker, Engine) else None

    @property
    def records(self) -> Mapping[ContainerName, Record | BadRecord]:
        return {} if isinstance(self.snapshot.metadata, Unknown) else self.snapshot.metadata

    def slot_ids(self) -> frozenset[SlotId]:
        """Every slot of the slot table."""
        return frozenset(self.index.table.slots) if self.index is not None else frozenset()

    def container_names(self) -> frozenset[ContainerName]:
        """Every container that a source or the checkpoint names."""
        named = {*self.report.decision.verdicts, *self.records, *self.report.checkpoint.identities}
        if self.engine is not None:
            named |= self.engine.by_name.keys()
        if self.index is not None:
            named |= self.index.booked_slots.keys()
        return frozenset(named)

    def container_document(self, name: ContainerName) -> Section:
        """Everything about a container."""
        container = self.engine.by_name.get(name) if self.engine is not None else None
        index, checkpoint = self.index, self.report.checkpoint
        booked = index.find_booked_slots(name) if index is not None else frozenset()
        return {
            "subject": name,
            "type": "container",
            "verdict": self._verdict_section(name, container),
            **self._reported_sections((name,)),
            "books": self._books_section(name),
            "metadata": self._unless_unknown(
                self.snapshot.metadata, sections.record_section(self.records.get(name))
            ),
            "docker": self._unless_unknown(
                self.snapshot.docker,
                None if container is None else sections.container_section(container),
            ),
            "limits": None if index is None else limits_section(name, index),
            "processes": self._process_section(container, booked),
            "device_access": None
            if index is None
            else device_section(container, self.report.decision.verdicts.get(name), index),
            "operations": sections.attempt_section(name, self.snapshot.operations),
            "memory": checkpoint_documents.container_checkpoint(
                name, container, checkpoint, self.snapshot.now
            ),
            **self._host_sections((name, *booked)),
        }

    def slot_document(self, name: SlotId, index: BooksIndex) -> Section:
        """Everything about a slot of the view's table."""
        table, slot = index.table, index.table.slots[name]
        processes = index.processes.find_processes(name)
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
                "used_by": self._unbooked_users(name, holders, index),
            },
            "holders": [
                {
                    "container": holder,
                    "user": None if (owner := index.find_owner(holder)) is None else owner.shown,
                    "verdict": self._describe_verdict(holder),
                }
                for holder in holders
            ],
            **self._reported_sections((name,)),
            "processes": self._unless_unknown(
                processes,
                sections.process_rows(processes, index) if isinstance(processes, tuple) else [],
            ),
            "memory": checkpoint_documents.slot_checkpoint(
                name, self.report.checkpoint, self.snapshot.now
            ),
            **self._host_sections((name, *holders)),
        }

    def _unbooked_users(
        self, name: SlotId, holders: tuple[ContainerName, ...], index: BooksIndex
    ) -> tuple[str, ...]:
        """Containers that use the device of the slot without a booking there."""
        uses = find_uses(self.snapshot, self.report.checkpoint, self.config)
        slots = {name: (index.table.device_of.get(name), holders)}
        return users_by_slot(uses, slots, self.snapshot.gpu).get(name, ())

    def _verdict_section(self, name: ContainerName, container: Container | None) -> Section:
        verdict = self.report.decision.verdicts.get(name)
        if verdict is not None:
            return sections.verdict_section(verdict, self.snapshot.now)
        return {
            "says": None,
            "words": self._describe_verdict(name, container),
            "slots": [],
            "evidence": [],
        }

    def _describe_verdict(self, name: ContainerName, container: Container | None = None) -> str:
        verdict = self.report.decision.verdicts.get(name)
        if verdict is not None:
            return sections.describe_verdict(verdict, self.snapshot.now)
        state = self.report.sources[Source.STATE]
        if state != "ok":
            return f"not decided: state: {state}"
        if container is not None:
            return "foreign: not a DS01 container, so ds01d never changes anything of it"
        return "none: no source lists it any more, only the checkpoint does"

    def _books_section(self, name: ContainerName) -> Section:
        if self.index is None:
            return {"unknown": self.report.sources[Source.STATE]}
        return {
            "booked_in": sorted(self.index.booked_slots.get(name, ())),
            "added_meanwhile": sorted(self.index.slots_to_merge.get(name, ())),
            **sections.owner_facts(self.index.find_owner(name)),
        }

    def _process_section(self, container: Container | None, booked: Iterable[SlotId]) -> Document:
        """Processes on the booked slots, and those of the container on other devices."""
        gpu, index = self.snapshot.gpu, self.index
        if isinstance(gpu, Unknown):
            return {"unknown": gpu.reason}
        # gpu.source = "none": there are no processes to know of.
        if index is None or not isinstance(gpu, Inventory):
            return []
        on_slots: list[GpuProcess] = []
        for slot in sorted(booked):
            processes = index.processes.find_processes(slot)
            if isinstance(processes, Unknown):
                return {"unknown": processes.reason}
            on_slots += processes or ()
        elsewhere = (
            p for p in gpu.processes if container is not None and p.container == container.id
        )
        # One on a booked slot is the container's as well, and is listed once.
        return sections.process_rows(dict.fromkeys((*on_slots, *elsewhere)), index)

    def _reported_sections(self, subjects: tuple[str, ...]) -> Section:
        now = self.snapshot.now
        return {
            "drifts": tuple(
                build_drift_document(gated, now) for gated in self._drifts_about(subjects)
            ),
            "findings": self._findings_about(subjects),
        }

    def _host_sections(self, subjects: tuple[str, ...]) -> Section:
        checkpoint, now = self.report.checkpoint, self.snapshot.now
        return {
            "freezes": [
                checkpoint_documents.freeze_document(freeze)
                for freeze in checkpoint_documents.freezes_on(subjects, checkpoint, now)
            ],
            "troubles": [*self.report.warnings],
            "waits": checkpoint_documents.host_checkpoint(checkpoint, now),
            "sources": describe_sources(self.report, self.config),
            "history": {"unknown": self.history}
            if isinstance(self.history, str)
            # Of the subject alone: the history of its slots is that of others, too.
            else [build_entry_document(row) for row in self._last_entries(subjects[:1])],
        }

    def _drifts_about(self, subjects: Iterable[str]) -> tuple[GatedDrift, ...]:
        """The drifts on any of the subjects."""
        wanted = set(subjects)
        return tuple(
            gated
            for gated in self.report.drifts
            if wanted & {gated.drift.container, gated.drift.slot}
            or any(wanted & set(pair) for pair in gated.drift.taken | gated.drift.given)
        )

    def _findings_about(self, subjects: Iterable[str]) -> tuple[Finding, ...]:
        """The findings on any of the subjects."""
        wanted = set(subjects)
        return tuple(f for f in self.report.findings if wanted & {f.container, f.slot})

    def _last_entries(self, subjects: Iterable[str]) -> tuple[HistoryRow, ...]:
        """The newest history rows about any of the subjects."""
        wanted = tuple(subjects)
        rows = () if isinstance(self.history, str) else self.history
        about = [row for row in rows if any(row.is_about(subject) for subject in wanted)]
        return tuple(about[-LAST_ENTRIES:])

    @staticmethod
    def _unless_unknown(source: object, answer: Document) -> Document:
        return {"unknown": source.reason} if isinstance(source, Unknown) else answer
