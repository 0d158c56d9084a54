"""The forms of all documents that commands print with --json, from which schemas are made.

Documents that are structs of ds01d stand for themselves; those that commands build as mappings are
described here, and tests hold the commands to it. `UnsetType`: a key that may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType, field

from ds01d.documents.history import EntryDocument
from ds01d.documents.output_versions import Output
from ds01d.documents.passes import DriftDocument, PassDocument
from ds01d.documents.personal import PersonalDocument
from ds01d.documents.quota import QuotaDocument
from ds01d.documents.undo import UndoDocument
from ds01d.documents.usage_report import UsageReport
from ds01d.documents.values import DisplayTime
from ds01d.model.books import SlotType
from ds01d.model.catalogue_check import ImageVerdict
from ds01d.model.claimed_event import ClaimedEvent
from ds01d.model.containers import EngineWarningKind, State
from ds01d.model.drift import Action, Finding, Kind, Outcome, WaitReason
from ds01d.model.fleet import HostState
from ds01d.model.fleet_drift import FleetDriftKind, FleetFindingKind, MembershipState
from ds01d.model.ownership import OwnerSource
from ds01d.model.primitives import Source


class Form(Struct, kw_only=True):
    """A document, or a part of one."""


# --- status, dashboard ----------------------------------------------------------------------------


class HolderForm(Form, kw_only=True):
    """A container in a slot, or that uses it."""

    container: str
    user: str | None
    state: str
    until: DisplayTime | None
    user_by: OwnerSource | None
    user_is_guess: bool
    processes: int | None
    memory_used: int | None
    idle_since: DisplayTime | None


class SlotForm(Form, kw_only=True):
    """A slot; memory in bytes, utilization in percent; null: not known."""

    slot: str
    type: SlotType
    uuid: str | None
    profile: str | None
    holders: tuple[HolderForm, ...]
    foreign: tuple[str, ...]
    foreign_holders: tuple[HolderForm, ...]
    memory_used: int | None
    memory_total: int | None
    utilization: int | None
    processes: int | None
    drifts: tuple[str, ...]


class GpuForm(Form, kw_only=True):
    """A GPU; memory in bytes, utilization in percent, temperature in degrees Celsius."""

    index: int
    uuid: str
    name: str
    mig: bool | None
    memory_used: int | None
    memory_total: int | None
    utilization: int | None
    temperature: int | None
    health: tuple[str, ...]


class PassHealthForm(Form, kw_only=True):
    failing: bool
    since: DisplayTime | None
    reason: str
    failures: int
    last_success: DisplayTime | None


class EngineWarningForm(Form, kw_only=True):
    kind: EngineWarningKind
    reason: str
    fix: str


class PaceForm(Form, kw_only=True):
    used: int
    limit: int
    window_s: float


class DaemonForm(Form, kw_only=True):
    """The daemon; without a published status `alive` and `reason` alone."""

    alive: bool
    reason: str
    written_at: DisplayTime | UnsetType = UNSET
    pid: int | UnsetType = UNSET
    version: str | UnsetType = UNSET
    mode: str | UnsetType = UNSET
    ready: bool | UnsetType = UNSET
    passes: PassHealthForm | UnsetType = UNSET
    engine_trusted: bool | UnsetType = UNSET
    degraded: tuple[str, ...] | UnsetType = UNSET
    warnings: tuple[EngineWarningForm, ...] | UnsetType = UNSET
    last_sweep: DisplayTime | UnsetType | None = UNSET
    last_sweep_duration_s: float | UnsetType | None = UNSET
    next_sweep: DisplayTime | UnsetType | None = UNSET
    readings_at: DisplayTime | UnsetType | None = UNSET
    pace: PaceForm | UnsetType = UNSET


class BooksForm(Form, kw_only=True):
    ok: bool
    reason: str


class SourceForm(Form, kw_only=True):
    ok: bool
    reason: str
    since: DisplayTime
    last_success: DisplayTime | None


class DriftCountForm(Form, kw_only=True):
    kind: Kind
    verdict: Outcome
    count: int


class OpenDriftForm(Form, kw_only=True):
    kind: Kind
    container: str | None
    slot: str | None
    action: Action
    verdict: Outcome
    gate: WaitReason | None
    reason: str
    first_seen: DisplayTime | None
    until: DisplayTime | None


class FreezeForm(Form, kw_only=True):
    """`subject` null: everything. `until` null: until somebody thaws it."""

    subject: str | None
    by: str
    reason: str
    since: DisplayTime
    until: DisplayTime | None


class UndoneForm(Form, kw_only=True):
    id: str
    by: str
    since: DisplayTime
    subjects: tuple[str, ...]


class StoreHostForm(Form, kw_only=True):
    host: str
    node: str
    version: str
    slots: int
    unseen_since: DisplayTime | None


class StoreDriftForm(Form, kw_only=True):
    kind: FleetDriftKind
    container: str
    user: str
    verdict: Outcome
    gate: WaitReason | None
    reason: str
    first_seen: DisplayTime | None


class StoreFindingForm(Form, kw_only=True):
    """`subject`: a container, a user, a host or a key of the store."""

    kind: FleetFindingKind
    subject: str
    reason: str


class StoreForm(Form, kw_only=True):
    """How this host stands in a store that all hosts share."""

    state: MembershipState
    since: DisplayTime
    reason: str
    node: str
    at: DisplayTime | None
    cluster: str
    revision: int
    entries: int
    hosts: tuple[StoreHostForm, ...]
    drifts: tuple[StoreDriftForm, ...]
    findings: tuple[StoreFindingForm, ...]


class StatusForm(Form, kw_only=True):
    daemon: DaemonForm
    books: BooksForm
    gpus: tuple[GpuForm, ...]
    slots: tuple[SlotForm, ...]
    sources: Mapping[Source, SourceForm]
    drifts: tuple[DriftCountForm, ...]
    open_drifts: tuple[OpenDriftForm, ...]
    findings: tuple[Finding, ...]
    fleet: StoreForm | None
    freezes: tuple[FreezeForm, ...]
    undone: tuple[UndoneForm, ...]


class UserForm(Form, kw_only=True):
    user: str
    containers: tuple[str, ...]


class LogEntryForm(Form, kw_only=True):
    """A line of the operations log; an invalid one has `unreadable` alone."""

    at: DisplayTime | UnsetType = UNSET
    operation: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    container: str | UnsetType = UNSET
    gpu: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    details: str | UnsetType = UNSET
    unreadable: str | UnsetType = UNSET


class DashboardForm(StatusForm, kw_only=True):
    at: DisplayTime
    users: tuple[UserForm, ...]
    operations: tuple[LogEntryForm, ...]
    operations_trouble: str


# --- explain --------------------------------------------------------------------------------------


class UnknownForm(Form, kw_only=True):
    """Why a section cannot be filled."""

    unknown: str


class VerdictForm(Form, kw_only=True):
    says: str | None
    words: str
    slots: tuple[str, ...]
    why: str | UnsetType = UNSET
    until: DisplayTime | UnsetType | None = UNSET
    due: DisplayTime | UnsetType | None = UNSET
    evidence: tuple[str, ...]


class BookedForm(Form, kw_only=True):
    """What the books have of a container, or `unknown`."""

    unknown: str | UnsetType = UNSET
    booked_in: tuple[str, ...] | UnsetType = UNSET
    added_meanwhile: tuple[str, ...] | UnsetType = UNSET
    user: str | UnsetType | None = UNSET
    user_by: OwnerSource | UnsetType | None = UNSET
    user_is_guess: bool | UnsetType = UNSET


class RecordForm(Form, kw_only=True):
    """A metadata record as written, or why it is `unknown` or `unreadable`."""

    unknown: str | UnsetType = UNSET
    unreadable: str | UnsetType = UNSET
    replaceable: bool | UnsetType = UNSET
    user: str | UnsetType | None = UNSET
    gpu_id: str | UnsetType | None = UNSET
    priority: int | UnsetType | None = UNSET
    allocated_at: str | UnsetType | None = UNSET
    stopped_at: str | UnsetType | None = UNSET
    booking: str | UnsetType | None = UNSET
    process: str | UnsetType | None = UNSET


class ContainerForm(Form, kw_only=True):
    """A container as Docker lists it, or why that is `unknown`."""

    unknown: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    state: State | UnsetType = UNSET
    asks_for: str | UnsetType = UNSET
    privileged: bool | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    created: DisplayTime | UnsetType | None = UNSET
    started: DisplayTime | UnsetType | None = UNSET
    finished: DisplayTime | UnsetType | None = UNSET
    labels: tuple[str, ...] | UnsetType = UNSET


class UserLimitsForm(Form, kw_only=True):
    """What the limits give the user; what the format of the limits lacks is missing."""

    unknown: str | UnsetType = UNSET
    user: str | UnsetType | None = UNSET
    hold_after_stop: str | UnsetType = UNSET
    source: str | UnsetType = field(name="from", default=UNSET)
    problem: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    reported_when_idle_for: str | UnsetType = UNSET
    max_gpu_equivalents: str | UnsetType = UNSET
    aggregate_gpu_limit: str | UnsetType = UNSET
    max_slots_per_container: str | UnsetType = UNSET
    whole_gpus: bool | UnsetType = UNSET
    group: str | UnsetType = UNSET
    scripts_stop_it_idle_for: str | UnsetType = UNSET
    scripts_stop_it_after: str | UnsetType = UNSET
    scripts_remove_it_stopped_for: str | UnsetType = UNSET
    exempt_from: tuple[str, ...] | UnsetType = UNSET


class ProcessForm(Form, kw_only=True):
    pid: int
    slot: str | None
    of: str
    user: str
    command: str
    memory_mib: int | None


class DeviceAccessForm(Form, kw_only=True):
    """Whether a container can open the devices that it needs; null: `unknown` says why."""

    needs: tuple[str, ...]
    can_open: bool | None
    denied: tuple[str, ...] | UnsetType = UNSET
    unknown: str | UnsetType = UNSET


class AttemptForm(Form, kw_only=True):
    unknown: str | UnsetType = UNSET
    create_pending_since: DisplayTime | UnsetType | None = UNSET
    create_failed: DisplayTime | UnsetType | None = UNSET


class StartForm(Form, kw_only=True):
    of: str
    as_written: str
    at: DisplayTime | None


class SightingForm(Form, kw_only=True):
    drift: Kind
    first_seen: DisplayTime


class RepairForm(Form, kw_only=True):
    drift: Kind
    times: int
    last: DisplayTime
    not_before: DisplayTime


class CheckpointForm(Form, kw_only=True):
    """What ds01d remembers of a container (or, with `device`, of a slot)."""

    device: str | UnsetType | None = UNSET
    container_id: str | UnsetType | None = UNSET
    last_alive: DisplayTime | UnsetType | None = UNSET
    devices_meant_at_start: tuple[str, ...] | UnsetType | None = UNSET
    booking_appeared: DisplayTime | UnsetType | None = UNSET
    booked_before_ds01d: bool | UnsetType | None = UNSET
    idle_since: DisplayTime | UnsetType | None = UNSET
    absent_since: DisplayTime | UnsetType | None = UNSET
    destroyed: DisplayTime | UnsetType | None = UNSET
    unlabelled_last_seen: DisplayTime | UnsetType | None = UNSET
    starts: tuple[StartForm, ...] | UnsetType = UNSET
    sightings: tuple[SightingForm, ...]
    repairs: tuple[RepairForm, ...]


class WaitsForm(Form, kw_only=True):
    waits_count_since: DisplayTime | None
    engine: str | None
    other_engine: str | None
    inventory_changed: DisplayTime | None


class _SubjectForm(Form, kw_only=True):
    """What both kinds of subjects have; others than the owner and operators get a part of it."""

    subject: str
    drifts: tuple[DriftDocument, ...]
    findings: tuple[Finding, ...]
    memory: CheckpointForm | UnsetType = UNSET
    freezes: tuple[FreezeForm, ...] | UnsetType = UNSET
    troubles: tuple[str, ...] | UnsetType = UNSET
    waits: WaitsForm | UnsetType = UNSET
    sources: Mapping[Source, str] | UnsetType = UNSET
    history: tuple[EntryDocument, ...] | UnknownForm | UnsetType = UNSET


class ContainerExplanation(_SubjectForm, kw_only=True):
    type: str
    verdict: VerdictForm
    books: BookedForm | UnsetType = UNSET
    metadata: RecordForm | UnsetType | None = UNSET
    docker: ContainerForm | UnsetType | None = UNSET
    limits: UserLimitsForm | UnsetType | None = UNSET
    processes: tuple[ProcessForm, ...] | UnknownForm | UnsetType = UNSET
    device_access: DeviceAccessForm | UnsetType | None = UNSET
    operations: AttemptForm | UnsetType | None = UNSET
    claims: tuple[ClaimedEvent, ...] | UnknownForm | UnsetType = UNSET


class TableSlotForm(Form, kw_only=True):
    type: SlotType
    profile: str | None
    uuid_in_state: str | None
    device: str | None
    device_gone: str | None
    was_called: tuple[str, ...]
    users: Mapping[str, int]
    used_by: tuple[str, ...]


class SlotHolderForm(Form, kw_only=True):
    container: str
    user: str | None
    verdict: str


class SlotExplanation(_SubjectForm, kw_only=True):
    type: str
    slot: TableSlotForm
    holders: tuple[SlotHolderForm, ...]
    processes: tuple[ProcessForm, ...] | UnknownForm | UnsetType | None = UNSET


# --- others ---------------------------------------------------------------------------------------


class HistoryForm(Form, kw_only=True):
    entries: tuple[EntryDocument, ...]
    older: int


class LogForm(Form, kw_only=True):
    entries: tuple[LogEntryForm, ...]
    unreadable: int


class CudaForm(Form, kw_only=True):
    stack: str
    version: str | None
    architecture: str
    evidence: tuple[str, ...]


class CheckedImageForm(Form, kw_only=True):
    framework: str
    version: str
    architecture: str
    image: str
    verdict: ImageVerdict
    present: bool | None
    digest: str | None
    remarks: tuple[str, ...]


class CatalogueCheckForm(Form, kw_only=True):
    catalogue: str
    images: tuple[CheckedImageForm, ...]


class ListedContainerForm(Form, kw_only=True):
    name: str
    short_name: str
    id: str
    user: str
    state: State
    slots: tuple[str, ...] | None
    framework: str | None
    created: DisplayTime | None
    started: DisplayTime | None
    finished: DisplayTime | None


class ContainerListForm(Form, kw_only=True):
    """`containers` null: Docker does not answer."""

    sources: Mapping[str, str]
    containers: tuple[ListedContainerForm, ...] | None


class GivenSlotForm(Form, kw_only=True):
    slot: str
    docker_id: str


class AllocateForm(Form, kw_only=True):
    """`slot`, `docker_id` and `shared_with` are of the first of `slots`; `host` null: this one.

    `notify_until`: until then a notice comes once there is room; null: none comes.
    """

    allocated: bool
    already: bool
    container: str | None
    user: str
    slot: str | None
    docker_id: str | None
    shared_with: tuple[str, ...]
    slots: tuple[GivenSlotForm, ...]
    id: str | None
    until: DisplayTime | None
    host: str | None
    refusal: str | None
    reason: str
    notify_until: DisplayTime | None


class ReleaseForm(Form, kw_only=True):
    released: bool
    container: str
    user: str | None
    slots: tuple[str, ...]


class CheckForm(Form, kw_only=True):
    """`health`: ok, warn or fail; `told`: what was found."""

    name: str
    health: str
    told: str
    fix: str


class DoctorForm(Form, kw_only=True):
    ok: bool
    checks: tuple[CheckForm, ...]


# --- container-create, fleet ----------------------------------------------------------------------


class CreationPlanForm(Form, kw_only=True):
    """What would be created."""

    container: str
    user: str
    framework: str
    image: str
    image_present: bool
    gpus: tuple[str, ...]
    command: tuple[str, ...]
    mounts: tuple[str, ...]
    start: bool


class CreationForm(Form, kw_only=True):
    """`planned`, `plan`: of --dry-run; `host` null: this one; `refusal`: the allocator's word."""

    host: str | None
    created: bool
    planned: bool
    container: str | None
    image: str | None
    slots: tuple[str, ...]
    started: bool
    refusal: str | None
    reason: str
    plan: CreationPlanForm | None


class FleetTotalForm(Form, kw_only=True):
    """`slots` and `free` are of the hosts that are not `unknown`."""

    hosts: int
    unknown: int
    slots: int
    free: int


class UnknownHostForm(Form, kw_only=True):
    """`since`: when this user could not ask it first; `last_answer`: when it answered last."""

    host: str
    reason: str
    since: DisplayTime | None
    last_answer: DisplayTime | None


class FleetForm(Form, kw_only=True):
    total: FleetTotalForm
    unknown: tuple[UnknownHostForm, ...]


class FleetHolderForm(Form, kw_only=True):
    container: str
    user: str | None
    state: str


class FleetSlotForm(Form, kw_only=True):
    slot: str
    type: str
    profile: str | None
    uuid: str | None
    free: bool
    holders: tuple[FleetHolderForm, ...]
    foreign: tuple[str, ...]


class FleetHostForm(Form, kw_only=True):
    """`slots` null: the host is unknown, and `last_slots` is what it said last."""

    host: str
    state: HostState
    reason: str
    unknown_since: DisplayTime | None
    last_answer: DisplayTime | None
    published_at: DisplayTime | None
    age_s: float | None
    version: str | None
    slots: tuple[FleetSlotForm, ...] | None
    last_slots: tuple[FleetSlotForm, ...] | None


class FleetStatusForm(FleetForm, kw_only=True):
    """`at`: when the ages were as they are here."""

    at: DisplayTime
    hosts: tuple[FleetHostForm, ...]


class FreeSlotForm(Form, kw_only=True):
    host: str
    slot: str
    type: str
    uuid: str | None


class FleetFreeForm(FleetForm, kw_only=True):
    free: tuple[FreeSlotForm, ...]


class OccurrenceForm(Form, kw_only=True):
    """`host_state` unknown: it was there when the host answered last."""

    host: str
    host_state: HostState
    slot: str
    uuid: str | None
    container: str | None
    user: str | None
    state: str | None
    booked: bool


class FleetWhereForm(FleetForm, kw_only=True):
    found: tuple[OccurrenceForm, ...]


# Which documents each output may be, and which commands print it.
FORMS: Mapping[Output, tuple[type[Struct], ...]] = {
    "allocate": (AllocateForm,),
    "catalogue-check": (CatalogueCheckForm,),
    "container-create": (CreationForm,),
    "container-list": (ContainerListForm,),
    "cuda": (CudaForm,),
    "dashboard": (DashboardForm,),
    "doctor": (DoctorForm,),
    "fleet-free": (FleetFreeForm,),
    "fleet-status": (FleetStatusForm,),
    "fleet-where": (FleetWhereForm,),
    "explain": (ContainerExplanation, SlotExplanation),
    "history": (HistoryForm,),
    "log": (LogForm,),
    "me": (PersonalDocument,),
    "pass": (PassDocument,),
    "quota": (QuotaDocument,),
    "release": (ReleaseForm,),
    "report": (UsageReport,),
    "status": (StatusForm,),
    "undo": (UndoDocument,),
}
COMMANDS: Mapping[Output, str] = {
    "allocate": "ds01ctl allocate",
    "catalogue-check": "ds01ctl catalogue check",
    "container-create": "container-create",
    "container-list": "container-list",
    "cuda": "ds01ctl cuda",
    "dashboard": "ds01-dashboard",
    "doctor": "ds01ctl doctor",
    "explain": "ds01ctl explain",
    "fleet-free": "ds01ctl fleet free",
    "fleet-status": "ds01ctl fleet status",
    "fleet-where": "ds01ctl fleet where",
    "history": "ds01ctl history",
    "log": "ds01ctl log",
    "me": "ds01ctl me",
    "pass": "ds01ctl plan, ds01ctl reconcile, reconcile-gpu-state",
    "quota": "ds01ctl quota",
    "release": "ds01ctl release",
    "report": "ds01ctl report",
    "status": "ds01ctl status",
    "undo": "ds01ctl undo",
}
