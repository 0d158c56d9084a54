"""What the GPU request of a running container meant when it started. Pure."""

from __future__ import annotations

from ds01d.decide.checkpoint_clock import CLOCK_SLACK_S
from ds01d.decide.device_resolution import index_devices, is_lasting, resolve_devices
from ds01d.model.checkpoint import Checkpoint, Resolved
from ds01d.model.containers import Container, GpuRequestKind
from ds01d.model.primitives import Now, Unknown
from ds01d.model.snapshot import Snapshot


def needs_resolution(container: Container, previous: Resolved | None) -> bool:
    """Whether what its request means has yet to be found out, or can be now though not before."""
    if previous is None or previous.started != container.started:
        return True
    request = container.request
    return previous.devices is None and not isinstance(request, Unknown) and is_lasting(request)


def resolve_request(container: Container, snapshot: Snapshot, checkpoint: Checkpoint) -> Resolved:
    """What a living container's request means, if it can be known now.

    Names by UUID and PCI address always can. Indices and counts mean what they meant at the start:
    known only if it started while Docker and this very inventory were watched. (The observer
    takes a fresh sample for a container that was not seen living since it started.)
    """
    unresolved = Resolved(started=container.started, devices=None)
    if isinstance(container.request, Unknown) or container.request.ask is GpuRequestKind.NONE:
        return unresolved
    devices, is_lasting_request = resolve_devices(
        container.request, index_devices(snapshot.gpu, snapshot.state)
    )
    if devices is None:
        return unresolved
    is_certain = (
        is_lasting_request
        or snapshot.gpu is None
        or _was_watched(container, snapshot.now, checkpoint)
    )
    return Resolved(started=container.started, devices=devices) if is_certain else unresolved


def _was_watched(container: Container, now: Now, checkpoint: Checkpoint) -> bool:
    """Whether a container started while Docker and the inventory of now were watched."""
    if container.started is None or checkpoint.since is None or checkpoint.inventory_seen is None:
        return False
    started = now.boot - (now.wall - container.started)
    # Decision 5: an index means a device only by the inventory at the start; a renumbering before
    # it was watched would go unnoticed. One that started in the moment of the sample, as far as
    # the clocks tell, may have started before a renumbering that this sample is the first to show.
    watched_since = max(checkpoint.since, checkpoint.inventory_seen)
    return watched_since < started <= now.boot + CLOCK_SLACK_S
