"""Which slots a request gets, or why it gets none. Pure.

Of the slots that can be offered (`slot_offers`) the free ones come first, those that are reserved
for the user before all others; only where they do not suffice, and sharing is allowed, held ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

from ds01d.decide.bookings import find_owners
from ds01d.decide.slot_offers import Pool, PoolIndex, SlotRejection
from ds01d.decide.slot_ranking import find_higher, rank_slot
from ds01d.decide.user_quota import (
    check_gpu_quota,
    check_limits,
    make_rejection,
    measure_booked,
    weigh_slot,
)
from ds01d.model.allocation import ONLY_WHOLE, Allocated, AllocationRequest, Refusal, Rejected
from ds01d.model.books import Slot, SlotType
from ds01d.model.primitives import DeviceUuid, SlotId, Unknown
from ds01d.text import format_count


def choose_slot(request: AllocationRequest, pool: Pool) -> Allocated | Rejected:
    """The slots, or the refusal. Total: every request gets one of them."""
    selection = _SlotSelection(request, pool)
    # Asking twice must not book twice: the answer are the slots that the container has already.
    if not request.additional and (already := selection.find_booked()) is not None:
        return already
    if (rejection := selection.check_limits()) is not None:
        return rejection
    # A limits file that is broken would lift every limit and reservation; a host without one has
    # none.
    if isinstance(pool.limits, Unknown) and not pool.limits.missing:
        return selection.make_rejection(Refusal.LIMITS_UNREADABLE, pool.limits.reason)
    # A slot of an unknown inventory may be a device that is gone, or in use.
    if isinstance(pool.gpu, Unknown):
        return selection.make_rejection(Refusal.INVENTORY_UNKNOWN, pool.gpu.reason)
    return selection.choose_best()


def docker_id(slot: Slot, device: DeviceUuid | None) -> str:
    """What a device request names: a MIG device's UUID, a whole GPU's index."""
    if slot.mig_index is None:
        return str(slot.gpu_index)
    return device or slot.uuid or f"{slot.gpu_index}:{slot.mig_index}"


class _SlotSelection:
    """What one request finds in the pool."""

    def __init__(self, request: AllocationRequest, pool: Pool) -> None:
        self._request, self._pool, self._index = request, pool, PoolIndex(pool)

    def check_limits(self) -> Rejected | None:
        """The refusal of a user who may have no more, whatever is free."""
        # Without NVML profiles may not be known, and that is what the refusal has to say.
        weigh = None if isinstance(self._pool.gpu, Unknown) else self._weigh
        return check_limits(self._request, self._pool.state, self._pool.records, weigh)

    def _weigh(self, slot: Slot) -> Fraction:
        return weigh_slot(slot, self._index.find_profile(slot))

    def find_booked(self) -> Allocated | Rejected | None:
        """The answer where the container has slots already; None where it has none."""
        name, count = self._request.container, self._request.count
        booked = [slot for slot in self._pool.state.slots.values() if name in slot.containers]
        if not booked:
            return None
        if len(booked) < count:
            slots = ", ".join(slot.id for slot in booked)
            return self.make_rejection(Refusal.FEWER_SLOTS_BOOKED, f"{name} holds only {slots}")
        for slot in () if isinstance(self._pool.gpu, Unknown) else booked[:count]:
            if (unusable := self._index.explain_unusable(slot)) is not None:
                return self.make_rejection(
                    Refusal.SLOT_UNUSABLE, f"{slot.id} is booked already: {unusable}"
                )
        return self._make_allocated(booked, already=True)

    def choose_best(self) -> Allocated | Rejected:
        """The slots that suit best."""
        rejections: dict[SlotId, SlotRejection] = {}
        free: list[Slot] = []
        taken: list[Slot] = []
        for slot in self._pool.state.slots.values():
            if self._request.container in self._index.find_holders(slot):
                continue  # another one is asked for
            rejection = (
                self._reject_profile(slot)
                or self._reject_whole_gpu(slot)
                or self._index.find_rejection(slot, self._request.container, self._request.user)
            )
            if rejection is not None:
                rejections[slot.id] = rejection
            else:
                (taken if self._index.find_holders(slot) else free).append(slot)
        count = self._request.count
        # A slot that is held is only offered where no other is left.
        enough = len(self._list_by_device(free)) >= count
        shareable = [] if enough or self._pool.sharing == "never" else taken
        if self._request.slot is not None:
            return self._choose_requested(self._request.slot, free + shareable, rejections)
        rank = partial(
            rank_slot,
            request=self._request,
            pool=self._pool,
            index=self._index,
            higher=find_higher(self._pool.records, self._request.priority),
        )
        best = [*sorted(free, key=rank), *sorted(shareable, key=rank)]
        offered = self._list_by_device(best)
        if len(offered) >= count:
            return self._choose_fitting(offered)
        refusals = Counter(rejection.refusal for rejection in rejections.values())
        if refusals and refusals[Refusal.NO_SUCH_PROFILE] == len(self._pool.state.slots):
            return self._reject_unknown_profile()
        if refusals and refusals[Refusal.FULL_GPU_NOT_ALLOWED] == len(self._pool.state.slots):
            return self.make_rejection(
                Refusal.FULL_GPU_NOT_ALLOWED, "only whole GPUs, and allow_full_gpu is false"
            )
        summary = self._summarize_rejections(taken, rejections)
        wanted = f"{count} asked for, {len(offered)} free; " if count > 1 else ""
        answer = self.make_rejection(Refusal.NO_GPU_AVAILABLE, f"{wanted}{summary}")
        fitting = [s for s in self._pool.state.slots.values() if self._reject_profile(s) is None]
        # One slot alone may come back with its GPU.
        is_lasting = 1 < count > len(self._list_by_device(fitting))
        return replace(answer, is_lasting=is_lasting)

    def _choose_fitting(self, offered: Sequence[Slot]) -> Allocated | Rejected:
        """The best of the slots; where those exceed the user's quota, the lightest."""
        count, pool = self._request.count, self._pool
        if self._request.quota is None:
            return self._make_allocated(offered[:count])
        booked = measure_booked(self._request.user, pool.state, pool.records, self._weigh)
        best, lightest = offered[:count], sorted(offered, key=self._weigh)[:count]
        refused = check_gpu_quota(self._request, booked, self._weigh_all(best))
        if refused is None:
            return self._make_allocated(best)
        refused = check_gpu_quota(self._request, booked, self._weigh_all(lightest))
        return refused or self._make_allocated(lightest)

    def _weigh_all(self, slots: Iterable[Slot]) -> Fraction:
        return sum(map(self._weigh, slots), Fraction(0))

    def _reject_whole_gpu(self, slot: Slot) -> SlotRejection | None:
        """Why a user may not have a slot that is a whole GPU; None if they may."""
        quota = self._request.quota
        if quota is None or quota.whole_gpus or slot.type is SlotType.MIG:
            return None
        return SlotRejection(
            refusal=Refusal.FULL_GPU_NOT_ALLOWED,
            short=ONLY_WHOLE,
            reason=f"{slot.id} is a whole GPU, and allow_full_gpu is false",
        )

    def _list_by_device(self, slots: Iterable[Slot]) -> list[Slot]:
        """The first slot of each device: after a renumbering two slots can mean one."""
        devices: dict[str, Slot] = {}
        for slot in slots:
            devices.setdefault(self._index.find_device(slot) or slot.id, slot)
        return list(devices.values())

    def _reject_profile(self, slot: Slot) -> SlotRejection | None:
        """Why a slot is not of the requested profile; None if it is."""
        profile = self._index.find_profile(slot)
        if self._request.profile in (None, profile):
            return None
        return SlotRejection(
            refusal=Refusal.NO_SUCH_PROFILE,
            short="of another profile",
            reason=f"{slot.id} is {profile}",
        )

    def _reject_unknown_profile(self) -> Rejected:
        profiles = sorted(set(map(self._index.find_profile, self._pool.state.slots.values())))
        return self.make_rejection(
            Refusal.NO_SUCH_PROFILE, f"{self._request.profile}; there are {', '.join(profiles)}"
        )

    def make_rejection(self, refusal: Refusal, detail: str) -> Rejected:
        return make_rejection(self._request, refusal, detail)

    def _make_allocated(self, slots: Sequence[Slot], *, already: bool = False) -> Allocated:
        """The allocation of one slot or more."""
        # Who asks again for a container that is booked already need not be its user.
        owner = find_owners([self._request.container], self._pool.records)[0] if already else None
        first, *more = (
            Allocated(
                container=self._request.container,
                user=owner or self._request.user,
                slot=slot.id,
                docker_id=docker_id(slot, device),
                device=device,
                priority=self._request.priority,
                already=already,
                shared_with=tuple(
                    n for n in self._index.find_holders(slot) if n != self._request.container
                ),
            )
            for slot in slots
            for device in (self._index.find_device(slot),)
        )
        return replace(first, more=tuple(more))

    def _choose_requested(
        self, slot_id: SlotId, offered: Iterable[Slot], rejections: Mapping[SlotId, SlotRejection]
    ) -> Allocated | Rejected:
        slot = self._pool.state.slots.get(slot_id)
        if slot is None:
            slot_ids = ", ".join(self._pool.state.slots) or "none"
            return self.make_rejection(Refusal.NO_SUCH_SLOT, f"{slot_id}; there are {slot_ids}")
        if slot in offered:
            return self._choose_fitting([slot])
        if (rejection := rejections.get(slot_id)) is not None:
            return self.make_rejection(rejection.refusal, rejection.reason)
        holders = ", ".join(self._index.find_holders(slot))
        return self.make_rejection(Refusal.SLOT_TAKEN, f"{slot_id} is held by {holders}")

    def _summarize_rejections(
        self, taken: Sequence[Slot], rejections: Mapping[SlotId, SlotRejection]
    ) -> str:
        """In numbers: "12 slots: 11 held, 1 reserved"; with the reasons where there are few."""
        slots = len(self._pool.state.slots)
        count_by_reason = Counter(rejection.short for rejection in rejections.values())
        counts = [f"{len(taken)} held"] if taken else []
        counts += [f"{number} {short}" for short, number in sorted(count_by_reason.items())]
        summary = format_count(slots, "slot")
        summary += f": {', '.join(counts)}" if counts else ""
        reasons = "; ".join(dict.fromkeys(rejection.reason for rejection in rejections.values()))
        summary += f"; {reasons}" if 0 < len(rejections) <= 3 else ""
        partial = self._pool.partial
        return (
            summary
            if partial is None or partial.reason in summary
            else f"{summary}; {partial.reason}"
        )
