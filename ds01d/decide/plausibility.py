"""Whether a sample of NVML can be right; one that cannot is unknown. Pure."""

from __future__ import annotations

from collections import Counter

from ds01d.model.devices import Inventory
from ds01d.model.primitives import Now, Source, Unknown


def check_plausible(
    gpu: Inventory | Unknown | None, *, remembered: int, now: Now, boot_grace_s: float
) -> Inventory | Unknown | None:
    """The sample itself, or an Unknown where it cannot be right."""
    if not isinstance(gpu, Inventory):
        return gpu
    uuids = [g.uuid for g in gpu.gpus] + [m.uuid for m in gpu.migs]
    duplicates = sorted(uuid for uuid, times in Counter(uuids).items() if times > 1)
    # A driver that is being replaced lists nothing for a moment. On a host with `gpu.source =
    # "nvml"` no GPU at all is a failure, not a fact.
    if not gpu.gpus:
        reason = "NVML lists no GPU at all"
    elif duplicates:
        reason = f"NVML lists {', '.join(duplicates)} more than once"
    elif now.boot < boot_grace_s and len(uuids) < remembered:
        # A MIG layout is lost at a reboot until a service restores it; slots that vanish in between
        # would lose their bookings.
        reason = (
            f"{len(uuids)} devices {now.boot:.0f} s after boot, {remembered} before it:"
            " a MIG layout may still be restored"
        )
    else:
        return gpu
    return Unknown(source=Source.NVML, reason=reason)
