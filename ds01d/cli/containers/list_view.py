"""What `container-list` shows: DS01 containers with their bookings."""

from __future__ import annotations

from collections.abc import Sequence

from ds01d.cli.output.blocks import Block, Cell, Sentence, Table, Tone, Toned
from ds01d.containers.listing import ContainerListRow, VisibleContainers
from ds01d.decide.short_names import split_name
from ds01d.documents.values import DisplayTime, Document, Section
from ds01d.model.containers import State
from ds01d.text import format_count

EXPLANATION = (
    "A running container has its GPU for itself. One that is exited or created does not run, and"
    " keeps its GPU for a while; container-start goes on with it. GPU: the slots that are booked."
    ' Its name in your commands is what stands before "._.".'
)
_TONES = {State.RUNNING: Tone.GOOD, State.DEAD: Tone.BAD, State.REMOVING: Tone.WARN}


def list_document(containers: VisibleContainers) -> Section:
    """For --json."""
    return {
        "sources": {
            name: containers.failures.get(name, "ok") for name in ("docker", "state", "metadata")
        },
        "containers": None
        if "docker" in containers.failures
        else [_row_document(row) for row in containers.rows],
    }


def list_blocks(containers: VisibleContainers, *, with_stopped: bool) -> Sequence[Block]:
    """For people."""
    blocks: list[Block] = [
        Sentence(f"{source} failed: {why}", Tone.BAD) for source, why in containers.failures.items()
    ]
    if "docker" in containers.failures:
        return blocks
    if containers.rows:
        columns = ("name", "user", "state", "since", "gpu", "framework")
        blocks.append(Table(columns, [_row_cells(row) for row in containers.rows]))
    else:
        blocks.append(Sentence("no containers" if with_stopped else "no running containers"))
    if containers.more:
        verb = "does" if containers.more == 1 else "do"
        blocks.append(
            Sentence(
                f"{format_count(containers.more, 'more container')} {verb} not run: --all",
                Tone.FAINT,
            )
        )
    return blocks


def _row_document(row: ContainerListRow) -> Document:
    return {
        "name": row.name,
        "short_name": split_name(row.name)[0],
        "id": row.id,
        "user": row.user,
        "state": row.state.value,
        "slots": None if row.slots is None else list(row.slots),
        "framework": row.framework,
        "created": None if row.created is None else DisplayTime(row.created),
        "started": None if row.started is None else DisplayTime(row.started),
        "finished": None if row.finished is None else DisplayTime(row.finished),
    }


def _row_cells(row: ContainerListRow) -> list[Cell]:
    gpu: Cell = Toned("unknown", Tone.WARN)
    if row.slots is not None:
        gpu = ", ".join(row.slots)
    return [
        row.name,
        row.user,
        Toned(row.state.value, _TONES.get(row.state, Tone.PLAIN)),
        None if row.since is None else DisplayTime(row.since),
        gpu,
        row.framework,
    ]
