"""Containers that had a name before, and whether they still run. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.decide.index import BooksIndex
from ds01d.model.holding import Free, Proof, VerdictReason
from ds01d.model.primitives import ContainerId, ContainerName, Unknown


def ids_of(name: ContainerName, free: Free, index: BooksIndex) -> frozenset[ContainerId]:
    """The containers that are gone or stopped by a verdict, as far as their IDs are known."""
    if free.proof is Proof.RENAMED:
        return frozenset()
    identity = index.checkpoint.identities.get(name) if free.why is VerdictReason.ABSENT else None
    ids = (free.known_id, identity.id if identity is not None else None)
    return frozenset(container_id for container_id in ids if container_id is not None) | former_ids(
        name, index
    )


def former_ids(name: ContainerName, index: BooksIndex) -> frozenset[ContainerId]:
    """The containers that are gone and had the name before the one that has, or had it last."""
    identity = index.checkpoint.identities.get(index.name_in_books(name))
    # Nearly always: most names have had one container only.
    if identity is None or not identity.former:
        return frozenset()
    listed = index.engine.containers if index.engine is not None else {}
    return frozenset(container_id for container_id in identity.former if container_id not in listed)


def describe_living(
    ids: frozenset[ContainerId], living: Mapping[ContainerId, int] | Unknown
) -> str | None:
    """Why these containers live for the kernel, or may do so; None if they do not.

    After containerd, dockerd and a shim were killed and their run state is lost, Docker says
    "exited (255)" of a container whose processes go on (moby 15397, kubernetes 41450, containerd
    8285 and 10645); after its storage driver was changed, it does not list it at all.
    """
    if isinstance(living, Unknown):
        return f"cannot determine whether its processes still run: {living.reason}" if ids else None
    alive = sorted(ids & living.keys())
    if not alive:
        return None
    return (
        f"process {living[alive[0]]} of container {alive[0][:12]} is still running,"
        " although Docker does not report it as running"
    )
