"""Quotas and reservations out of the limits' YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds01d.adapters.books.limits import LimitsFile
from ds01d.adapters.books.limits_rules import resolve_limits
from ds01d.adapters.books.strict_yaml import read_yaml
from ds01d.adapters.books.timestamps import parse_time
from ds01d.model.limits import Limits, Reservation
from ds01d.model.primitives import Unknown, UserName
from tests.support.daemon import DATA


def understood(text: str) -> Limits:
    return resolve_limits(read_yaml(text.encode(), "limits.yaml"), "limits.yaml")


def test_the_example_of_a_server() -> None:
    found = resolve_limits(read_yaml((DATA / "resource-limits.yaml").read_bytes(), "it"), "it")
    quotas = {
        user: found.find_quota(UserName(user)) for user in ("alice", "rosa", "datasciencelab")
    }
    assert quotas == {"alice": 2, "rosa": 8, "datasciencelab": None}
    assert found.find_quota(UserName("nobody-knows")) == 2
    assert found.find_quota(UserName("john_doe")) == 1
    assert found.unclear == ()
    assert found.reservations == (
        Reservation(
            user=UserName("john_doe"),
            gpus=frozenset({"0"}),
            start=parse_time("2025-11-01T00:00:00"),
            end=parse_time("2025-11-08T00:00:00"),
        ),
    )


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("defaults: {}", 1),
        ("defaults: {max_mig_instances: 0}", 0),
        ("defaults: {max_mig_instances: null}", None),
        ("defaults: {max_mig_instances: lots}", 1),
        ("defaults: {max_mig_instances: true}", 1),
        ("defaults: {max_mig_instances: 5}\nuser_overrides: {al: {}}", 5),
        ("defaults: {max_gpus_per_user: 3}", 3),
        ("defaults: {max_gpus_per_user: 3, max_mig_instances: 5}", 3),
        ("defaults: {max_gpus_per_user: 3}\nuser_overrides: {al: {max_mig_instances: 5}}", 3),
        ("defaults: {max_gpus_per_user: 3}\nuser_overrides: {al: {max_gpus_per_user: 5}}", 5),
        ("defaults: {max_gpus_per_user: null, max_mig_instances: 5}", None),
        ("defaults: {max_gpus_per_user: Unlimited}", None),
    ],
)
def test_a_quota_or_the_smallest(text: str, quota: int | None) -> None:
    assert understood(text).find_quota(UserName("al")) == quota


def test_every_form_of_a_slot_and_of_a_time() -> None:
    found = understood(
        'user_overrides: {al: {reserved_gpus: [0, 1.2, "2:3", "3", 1:0, 1.10],'
        " reservation_start: 2026-01-31, reservation_end: 2026-02-01T10:00:00}}"
    )
    (one,) = found.reservations
    assert one.gpus == {"0", "1.2", "2.3", "3", "1.0", "1.10"}
    assert one.start == parse_time("2026-01-31T00:00")
    assert one.end == parse_time("2026-02-01T10:00")
    assert understood("user_overrides: {al: {reserved_gpus: 1}}").reservations[0].gpus == {"1"}


def test_what_makes_no_sense_is_told_and_gives_nothing_away() -> None:
    found = understood("user_overrides: {al: {reserved_gpus: [0, {a: 1}], reservation_end: soon}}")
    (one,) = found.reservations
    assert (one.gpus, one.end) == (frozenset({"0"}), None)
    assert [why.partition(":")[2].split(":")[0].strip() for why in found.unclear] == [
        "user_overrides.al.reserved_gpus",
        "user_overrides.al.reservation_end",
    ]


def test_reservations_can_be_switched_off() -> None:
    text = (
        "user_overrides: {al: {reserved_gpus: [0]}}\ngpu_allocation: {respect_reservations: false}"
    )
    assert understood(text).reservations == ()


def test_a_file_that_is_not_there_is_no_broken_one(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path / "no" / "none.yaml"):
        answer = LimitsFile(path).read()
        assert isinstance(answer, Unknown)
        assert answer.missing
    (tmp_path / "broken.yaml").write_text("[", encoding="utf-8")
    answer = LimitsFile(tmp_path / "broken.yaml").read()
    assert isinstance(answer, Unknown)
    assert not answer.missing
