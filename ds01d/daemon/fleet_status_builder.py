"""What the published status has of a fleet, made of what its last pass saw. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ds01d.model.drift import Outcome
from ds01d.model.fleet_books import NodeId
from ds01d.model.fleet_drift import FleetFinding, GatedFleetDrift, Membership
from ds01d.model.primitives import Now
from ds01d.reconcile.fleet_report import FleetReport, HostView
from ds01d.reporting.fleet_status import (
    MOST_SHOWN,
    FleetCounts,
    FleetDriftStatus,
    FleetFindingStatus,
    FleetHostStatus,
    FleetStatus,
)


def build_fleet_status(
    membership: Membership, report: FleetReport | None, node: NodeId, now: Now
) -> FleetStatus:
    """`report`: of the last pass; None before the first."""
    state, since, reason = str(membership.state), membership.since, membership.reason
    if report is None:
        return FleetStatus(state=state, since=since, reason=reason, node=str(node))
    drifts = [gated for gated in report.drifts if gated.outcome is not Outcome.DONE]
    return FleetStatus(
        state=state,
        since=since,
        reason=reason,
        node=str(node),
        at=report.at,
        cluster=report.cluster,
        revision=report.revision,
        entries=report.entries,
        # Before the lists are cut: metrics and alerts go by these.
        counts=_count_all(report.hosts, drifts, report.findings),
        hosts=tuple(map(_show_host, report.hosts[:MOST_SHOWN])),
        drifts=tuple(_show_drift(gated, now) for gated in drifts[:MOST_SHOWN]),
        findings=tuple(map(_show_finding, report.findings[:MOST_SHOWN])),
    )


def _count_all(
    hosts: Sequence[HostView],
    drifts: Sequence[GatedFleetDrift],
    findings: Sequence[FleetFinding],
) -> FleetCounts:
    by_kind: dict[str, Counter[str]] = {}
    for gated in drifts:
        by_kind.setdefault(str(gated.drift.kind), Counter())[str(gated.outcome)] += 1
    return FleetCounts(
        hosts=len(hosts),
        unseen=sum(host.unseen_since is not None for host in hosts),
        drifts={kind: dict(outcomes) for kind, outcomes in by_kind.items()},
        findings=dict(Counter(str(finding.kind) for finding in findings)),
    )


def _show_host(host: HostView) -> FleetHostStatus:
    return FleetHostStatus(
        host=host.host,
        node=str(host.node),
        version=host.version,
        slots=host.slots,
        unseen_since=host.unseen_since,
    )


def _show_drift(gated: GatedFleetDrift, now: Now) -> FleetDriftStatus:
    return FleetDriftStatus(
        kind=str(gated.drift.kind),
        container=gated.drift.entry.container,
        user=gated.drift.entry.user,
        outcome=str(gated.outcome),
        difference=gated.drift.reason,
        gate=None if gated.gate is None else str(gated.gate),
        reason=gated.reason,
        first_seen=now.to_wall(gated.first_seen),
    )


def _show_finding(finding: FleetFinding) -> FleetFindingStatus:
    return FleetFindingStatus(
        kind=str(finding.kind), subject=finding.subject, reason=finding.reason
    )
