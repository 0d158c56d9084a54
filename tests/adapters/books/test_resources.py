"""The limits of containers in resource-limits.yaml."""

from __future__ import annotations

import pytest

from ds01d.adapters.books.limits_rules import resolve_limits
from ds01d.adapters.books.strict_yaml import read_yaml
from ds01d.model.limits import ResourceLimits
from ds01d.model.primitives import UserName


def limits(text: str, user: str = "amy") -> ResourceLimits:
    raw = read_yaml(text.encode(), "limits")
    assert isinstance(raw, dict)
    return resolve_limits(raw, "limits").find_resources(UserName(user))


def test_the_first_section_that_has_a_key_counts() -> None:
    text = """
defaults: {max_cpus: 16, memory: 32g, memory_swap: 32g, shm_size: 16g, pids_limit: 4096,
           max_containers_per_user: 3, slice: "ds01-{group}-{user}.slice"}
groups:
  student: {members: [amy, "b.e.n@lab"], memory: 64G, pids_limit: null}
user_overrides: {rosa: {max_cpus: 0.5, memory_swap: -1}}
default_group: student
"""
    amy = limits(text)
    assert (amy.cpus, amy.memory, amy.memory_swap) == (16.0, 64 << 30, 32 << 30)
    assert (amy.shm_bytes, amy.pids, amy.max_containers) == (16 << 30, None, 3)
    assert amy.slice == "ds01-student-amy.slice"
    assert limits(text, "b.e.n@lab").slice == "ds01-student-b_e_n.slice"
    assert len(limits(text, "x" * 200).slice) < 60
    rosa = limits(text, "rosa")
    assert (rosa.cpus, rosa.memory_swap, rosa.slice) == (0.5, -1, "ds01-override-rosa.slice")


def test_without_a_key_there_is_no_limit() -> None:
    assert limits("defaults: {}") == ResourceLimits()
    assert limits("defaults: {memory: null, max_cpus: null}") == ResourceLimits()


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("memory: lots", "defaults.memory"),
        ("memory: 0", "defaults.memory"),
        ("memory: -1", "defaults.memory"),
        ("memory: [1g]", "defaults.memory"),
        ("memory: yes", "defaults.memory"),
        ("memory_swap: -2", "defaults.memory_swap"),
        ("max_cpus: 0", "defaults.max_cpus"),
        ("max_cpus: all", "defaults.max_cpus"),
        ("pids_limit: 1.5", "defaults.pids_limit"),
        ("slice: ../x", "defaults.slice"),
        ("slice: 'a/b.slice'", "defaults.slice"),
        ("slice: '{home}.slice'", "defaults.slice"),
        ("max_containers_per_user: -1", "defaults.max_containers_per_user"),
    ],
)
def test_an_invalid_limit_is_a_problem(value: str, key: str) -> None:
    assert limits(f"defaults: {{{value}}}").problem.startswith(f"limits: {key}: invalid")


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [1]",
        "user_overrides: [1]",
        "groups: {a: 1}",
        "groups: {a: {members: [amy]}, b: {members: [amy]}}",
    ],
)
def test_where_it_is_unclear_whose_limits_count(text: str) -> None:
    assert limits(text).problem
