"""What can only be reported. One function a file, listed here by hand; none knows another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ds01d.decide.findings.booking_without_device import booking_without_device
from ds01d.decide.findings.broad_request import broad_request
from ds01d.decide.findings.device_lost import device_lost
from ds01d.decide.findings.device_without_slot import device_without_slot
from ds01d.decide.findings.foreign_use import foreign_use
from ds01d.decide.findings.idle_holder import idle_holder
from ds01d.decide.findings.label_contradiction import label_contradiction
from ds01d.decide.findings.long_name import long_name
from ds01d.decide.findings.not_adopted import not_adopted
from ds01d.decide.findings.other_writer import other_writer
from ds01d.decide.findings.overdue_hold import overdue_hold
from ds01d.decide.findings.rogue_process import rogue_process
from ds01d.decide.findings.shared_slot import shared_slot
from ds01d.decide.findings.stuck_removal import stuck_removal
from ds01d.decide.findings.unclear_limits import unclear_limits
from ds01d.decide.findings.unclear_request import unclear_request
from ds01d.decide.findings.unhealthy_gpu import unhealthy_gpu
from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Finding
from ds01d.model.holding import Verdicts

FINDINGS: tuple[Callable[[BooksIndex, Verdicts], Iterator[Finding]], ...] = (
    shared_slot,
    rogue_process,
    foreign_use,
    broad_request,
    booking_without_device,
    device_without_slot,
    not_adopted,
    label_contradiction,
    unhealthy_gpu,
    other_writer,
    unclear_limits,
    unclear_request,
    long_name,
    stuck_removal,
    overdue_hold,
    idle_holder,
    device_lost,
)


def find_all(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """Everything there is to report of a host."""
    for find in FINDINGS:
        yield from find(index, verdicts)
