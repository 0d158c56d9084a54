"""Exempt: monitoring, by what an administrator configured; never a container of a user."""

from __future__ import annotations

import pytest

from ds01d.config import ExemptConfig
from ds01d.decide.exemptions import is_exempt
from tests.support.build import LABELS, container

RULES = ExemptConfig(
    labels=("monitoring", "role=exporter*"), names=("dcgm-*",), images=("nvcr.io/*/dcgm-exporter",)
)


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": {"monitoring": ""}},
        {"labels": {"role": " Exporter-2 "}},
        {"name": "dcgm-1"},
        {"image": "nvcr.io/nvidia/dcgm-exporter"},
        {"image": "nvcr.io/nvidia/dcgm-exporter:4.2"},
        {"image": "nvcr.io/nvidia/dcgm-exporter@sha256:12"},
    ],
    ids=str,
)
def test_a_label_a_name_or_an_image_exempts(fields: dict[str, object]) -> None:
    there = container(**({"name": "x", "labels": {}} | fields))  # type: ignore[arg-type]
    assert is_exempt(there, RULES)
    assert not is_exempt(there, ExemptConfig(labels=(), names=(), images=()))


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": {"role": "trainer"}},
        {"name": "x-dcgm-1"},
        {"image": "nvcr.io:5000/dcgm-exporter"},
        {"name": "dcgm-1._.1001"},
        {"name": "dcgm-1", "labels": LABELS},
        {"labels": {**LABELS, "monitoring": ""}},
    ],
    ids=str,
)
def test_nothing_else_does_and_no_container_of_a_user(fields: dict[str, object]) -> None:
    there = container(**({"name": "x", "labels": {}} | fields))  # type: ignore[arg-type]
    assert not is_exempt(there, RULES)
