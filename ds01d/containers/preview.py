"""What a creation would do. Asks Docker and the books, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ds01d.config import Config
from ds01d.containers.ports import ContainerEngine
from ds01d.errors import Refused
from ds01d.model.allocation import Rejected
from ds01d.model.creation import Order
from ds01d.model.primitives import ContainerName, UserName
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.books_ports import BooksWorld


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationPlan:
    """The container that would be created. `is_present`: its image need not be pulled."""

    name: ContainerName
    user: str
    framework: str
    image: str
    is_present: bool
    gpus: Sequence[str]
    command: Sequence[str]
    mounts: Sequence[str]
    start: bool


def preview_creation(
    order: Order, engine: ContainerEngine, world: BooksWorld, config: Config
) -> CreationPlan:
    """Raises `Refused` where it would be refused."""
    if engine.find_container(order.name) is not None:
        raise Refused(f'container "{order.name}" already exists')
    mounts = order.setup.mounts
    if order.confinement is not None:
        mounts = tuple(
            f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"
            for mount in order.confinement.mounts
        )
    return CreationPlan(
        name=order.name,
        user=order.owner.name,
        framework=order.framework,
        image=order.image,
        is_present=engine.has_image(order.image),
        gpus=_preview_slots(order, world, config),
        command=order.setup.command,
        mounts=mounts,
        start=order.start,
    )


def _preview_slots(order: Order, world: BooksWorld, config: Config) -> list[str]:
    if not order.slots:
        return []
    answers = Allocator(world, config).preview_slots(UserName(order.owner.name), order.name)
    planned: list[str] = []
    for slot in order.slots:
        answer = answers.get(slot)
        if answer is None:
            existing = ", ".join(name for name in answers if name is not None)
            raise Refused(f'no slot "{slot}"; slots: {existing}')
        if isinstance(answer, Rejected):
            raise Refused(f"no GPU: {answer.reason}")
        planned.append(f"{answer.slot} ({answer.device or answer.docker_id})")
    if len(order.slots) > 1 and order.slots[0] is None:
        planned = [f"{len(order.slots)}, the first of them {planned[0]}"]
    return planned
