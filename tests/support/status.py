"""What a daemon that is alive publishes, for those who read it."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from ds01d.model.books import SlotType
from ds01d.model.drift import Finding, FindingKind, Kind, Outcome
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName, Wall
from ds01d.reporting.status import DriftCount, Holder, Pace, SlotStatus, SourceStatus, Status, Sweep


def published(**changes: Any) -> Status:
    """A status of now, by this very process, with `changes`."""
    now = Wall(time.time())
    fine = SourceStatus(ok=True, since=Wall(now - 3600), last_success=now)
    status = Status(
        written_at=now,
        pid=os.getpid(),
        version="1.2.3",
        mode="repair",
        ready=True,
        engine_trusted=True,
        sources={
            Source.DOCKER: fine,
            Source.NVML: SourceStatus(ok=False, since=Wall(now - 90), reason="no driver"),
        },
        pace=Pace(used=1, limit=2, window_s=600.0),
        last_sweep=Sweep(at=Wall(now - 12), duration_s=0.05),
        next_sweep=Wall(now + 48),
        slots=(
            SlotStatus(
                id=SlotId("1.0"),
                type=SlotType.MIG,
                uuid=DeviceUuid("MIG-1"),
                profile="1g.10gb",
                holders=(
                    Holder(
                        container=ContainerName("rest._.1003"),
                        user=UserName("carol"),
                        state="exited",
                        until=Wall(now + 3600),
                    ),
                ),
                foreign=("web", "pid 7"),
            ),
            SlotStatus(id=SlotId("0"), type=SlotType.PHYSICAL),
        ),
        drifts=(DriftCount(kind=Kind.WRONG_SLOT, outcome=Outcome.WAITING, count=2),),
        findings=(Finding(kind=FindingKind.SHARED_SLOT, container=None, slot=None, reason="two"),),
    )
    return msgspec.structs.replace(status, **changes)
