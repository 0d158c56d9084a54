"""Status documents of a large host, for the dashboard: eight GPUs of seven slots."""

from __future__ import annotations

from ds01d.cli.ctl.log_view import LogRow
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.dashboard.view import DashboardState
from ds01d.model.books import SlotType
from ds01d.model.drift import Action, Finding, FindingKind, Kind, Outcome, WaitReason
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName, Wall
from ds01d.reporting.status import (
    DriftCount,
    GpuStatus,
    Holder,
    Pace,
    PublishedDrift,
    SlotStatus,
    SourceStatus,
    Status,
    Sweep,
)

NOW = Wall(1_800_000_000.0)
GIB = 2**30
_USERS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace.hopper")
_NAMES = ("train", "resnet50-lr0.01", "notebook", "llm-finetune", "eval", "dataprep")


def holder(name: str, user: str, state: str = "running", left_s: float | None = None) -> Holder:
    return Holder(
        container=ContainerName(name),
        user=UserName(user),
        state=state,
        until=None if left_s is None else Wall(NOW + left_s),
        processes=len(name) % 4 if state == "running" else 0,
    )


def large_status(*, free_every: int = 0) -> Status:
    """Eight A100s, each cut into seven; every slot has a holder, but each `free_every`-th."""
    slots: list[SlotStatus] = []
    for number in range(56):
        gpu, mig = divmod(number, 7)
        is_free = bool(free_every) and number % free_every == 0
        is_stopped = number % 9 == 4
        name = f"{_NAMES[number % len(_NAMES)]}-{number}._.{1001 + number % len(_USERS)}"
        one = holder(
            name,
            _USERS[number % len(_USERS)],
            "exited" if is_stopped else "running",
            300 + 1500 * number if is_stopped else None,
        )
        slots.append(
            SlotStatus(
                id=SlotId(f"{gpu}.{mig}"),
                type=SlotType.MIG,
                uuid=DeviceUuid(f"MIG-{number}"),
                profile="1g.10gb",
                holders=() if is_free else (one,),
                processes=0 if is_free else number % 4,
                memory_used=0 if is_free else (number * 7 % 100) * GIB // 10,
                memory_total=10 * GIB,
            )
        )
    fine = SourceStatus(ok=True, since=Wall(NOW - 7200), last_success=NOW)
    drifting = slots[8].holders[0].container if slots[8].holders else ContainerName("absent")
    return Status(
        written_at=Wall(NOW - 4),
        pid=77,
        version="1.2.3",
        mode="repair",
        ready=True,
        engine_trusted=True,
        sources=dict.fromkeys((Source.DOCKER, Source.NVML), fine),
        pace=Pace(used=1, limit=14, window_s=600.0),
        last_sweep=Sweep(at=Wall(NOW - 12), duration_s=0.05),
        next_sweep=Wall(NOW + 48),
        readings_at=Wall(NOW - 12),
        drifts=(DriftCount(kind=Kind.WRONG_SLOT, outcome=Outcome.WAITING, count=1),),
        gpus=tuple(
            GpuStatus(
                index=number,
                uuid=DeviceUuid(f"GPU-{number}"),
                name="NVIDIA A100-SXM4-80GB",
                mig=True,
                memory_used=(10 + number * 9) * GIB,
                memory_total=80 * GIB,
                temperature=41 + number * 7,
                health=("XID 79: GPU has fallen off the bus",) if number == 5 else (),
            )
            for number in range(8)
        ),
        slots=tuple(slots),
        open_drifts=(
            PublishedDrift(
                kind=Kind.WRONG_SLOT,
                container=drifting,
                slot=SlotId("1.1"),
                action=Action.MOVE,
                outcome=Outcome.WAITING,
                gate=WaitReason.SETTLE,
                difference="it runs with 1.4",
                reason="not seen unchanged for 5 s",
                first_seen=Wall(NOW - 2),
                until=Wall(NOW + 3),
            ),
        ),
        findings=(
            Finding(
                kind=FindingKind.ROGUE_PROCESS,
                container=None,
                slot=SlotId("3.2"),
                reason="process 4711 of mallory is of no container",
            ),
        ),
    )


def large_state(*, free_every: int = 0) -> DashboardState:
    """The same, as the dashboard reads it, with two lines of the operations log."""
    status = large_status(free_every=free_every)
    lines = (
        "2027-01-15 07:58:12|create_success|bob|resnet50-lr0.01-1._.1002|0.1|success|torch|",
        "2027-01-15 07:59:00|stop|erin|eval-4._.1005|0.4|success||",
    )
    return DashboardState(
        status=StatusView(last=status, slots=status.slots),
        operations=tuple(map(LogRow.parse, lines)),
        log_problem="",
        now=NOW,
    )
