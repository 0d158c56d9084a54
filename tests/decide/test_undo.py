"""What cannot be known, or was written since, refuses an undo."""

from __future__ import annotations

import pytest

from ds01d.decide.undo_choice import UndoRefusal
from ds01d.model.drift import Kind
from ds01d.model.primitives import Source, UserName
from tests.reconcile.test_undo import done, of, refusal, released, repaired, undo
from tests.support.build import record


def test_metadata_that_somebody_wrote_since() -> None:
    life, place, _, _ = repaired(of(Kind.MISSING_METADATA))
    entry = done(life)[0].entry.id
    life.host.records[place.name] = record(place.name, place.first, user=UserName("eve"))
    assert refusal(life, entry)[0] is UndoRefusal.BOOKS_CHANGED


@pytest.mark.parametrize("source", [Source.DOCKER, Source.STATE, Source.METADATA, Source.NVML])
def test_a_source_that_is_silent_contradicts_everything(source: Source) -> None:
    life, _, entry = released()
    life.fail(source)
    assert refusal(life, entry)[0] is UndoRefusal.SOURCE_SILENT
    life.mend()
    assert undo(life, entry).refused is None
