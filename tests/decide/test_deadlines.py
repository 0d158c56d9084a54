"""Wall-clock times are put on CLOCK_BOOTTIME once, and stay there."""

from __future__ import annotations

import pytest

from ds01d.model.primitives import Source
from tests.support.build import HOUR, NAME
from tests.support.repairs import hold_end, watched

TRAIN = f"id-{NAME}"


@pytest.mark.parametrize("step", [-90_000.0, -3_600.0, 3_600.0, 90_000.0])
def test_a_deadline_does_not_move_with_the_wall_clock(step: float) -> None:
    life = watched().stop().after(60.0)
    before = hold_end(life)
    life.set_wall(step).after(60.0)
    assert hold_end(life) == before


@pytest.mark.parametrize(
    "source", [Source.DOCKER, Source.METADATA, Source.STATE, Source.LIMITS, Source.NVML]
)
def test_nor_if_a_source_failed_meanwhile(source: Source) -> None:
    life = watched().stop().after(60.0)
    before = hold_end(life)
    life.fail(source).after(60.0).set_wall(24 * HOUR).mend().after(60.0)
    assert hold_end(life) == before


def test_a_time_in_the_future_counts_from_its_first_sight() -> None:
    life = watched().stop(finished_ago=-HOUR).after(0)
    assert hold_end(life) == life.host.boot + 900.0
    first = hold_end(life)
    assert hold_end(life.after(300.0)) == first


def test_a_stop_that_the_clock_denies_counts_from_its_first_sight() -> None:
    """It was seen living a minute ago, and Docker says it stopped a day ago."""
    life = watched().stop(finished_ago=24 * HOUR).after(0)
    assert hold_end(life) == life.host.boot + 900.0
