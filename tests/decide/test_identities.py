"""Which container a name belongs to, from one pass to the next."""

from __future__ import annotations

from ds01d.model.primitives import Source
from tests.support.build import HOUR, NAME, OTHER, Life
from tests.support.repairs import memory, watched

TRAIN = f"id-{NAME}"


def test_when_it_last_lived_is_known() -> None:
    life = watched()
    alive = life.host.boot
    life.stop().after(300.0)
    assert memory(life).identities[NAME].alive_at == alive


def test_what_is_new_since_a_sweep_was_not_there_at_that_sweep() -> None:
    life = Life().after(60.0)
    before = life.host.boot
    life.host.pass_time(30.0)
    life.start_now("MIG-1-0").after(60.0)
    assert memory(life).identities[NAME].unborn_at == before


def test_a_rename_makes_nobody_younger() -> None:
    life = Life().after(60.0).start_now("MIG-1-0").after(60.0)
    born = memory(life).identities[NAME].unborn_at
    life.rename(NAME, OTHER).after(0)
    assert born is not None
    assert memory(life).identities[OTHER].unborn_at == born


def test_the_old_name_keeps_its_container_until_the_booking_has_followed() -> None:
    life = watched().rename(NAME, OTHER).run("MIG-0-0", id="two").after(0)
    assert memory(life).identities[NAME].id == TRAIN
    assert memory(life).identities[OTHER].id == TRAIN


def test_also_while_the_state_cannot_be_read() -> None:
    life = watched().rename(NAME, OTHER).run("MIG-0-0", id="two").fail(Source.STATE).after(0)
    assert memory(life).identities[NAME].id == TRAIN


def test_a_name_that_nobody_booked_belongs_to_who_has_it() -> None:
    life = Life().run("MIG-1-0").after(HOUR).rename(NAME, OTHER).run("MIG-0-0", id="two").after(0)
    assert memory(life).identities[NAME].id == "two"
