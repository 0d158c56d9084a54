"""Running containers that cannot open their GPUs any more."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.device_loss import find_denied
from ds01d.decide.index import BooksIndex
from ds01d.model.device_access import NVIDIA_MAJOR, name_node
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts


def device_lost(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """The kernel denies what they requested: systemd has set the rules of their cgroup again."""
    for name, verdict in verdicts.items() if index.checkpoint.device_access else ():
        container = index.containers.get(name)
        access = None if container is None else index.checkpoint.device_access.get(container.id)
        if container is None or access is None or access.lost is None:
            continue
        # Decision 279: while runc changes the rules, everything is denied for a moment.
        if index.snapshot.now.boot - access.lost < max(index.policy.settle_s, 1.0):
            continue
        denied = find_denied(container, verdict, index)
        if not denied:
            continue
        slots = tuple(sorted(denied))
        nodes = ", ".join(
            f"{name_node(minor)} ({NVIDIA_MAJOR}:{minor})" for minor in sorted({*denied.values()})
        )
        yield Finding(
            kind=FindingKind.DEVICE_LOST,
            container=name,
            slot=slots[0],
            reason=f"it runs, and its cgroup does not let it open {nodes} any more, as after"
            " systemctl daemon-reload: a program that has the GPU open goes on, a new one fails;"
            f" docker restart {name}",
            slots=slots,
            user=index.find_user(name),
            since=access.lost_wall,
        )
