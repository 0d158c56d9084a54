"""docs/invariants.md says what is true: each guard, test and mutation in it is there.

That the mutations are killed is what `make mutations` tries; it takes minutes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from tests.verification.mutations import (
    INVARIANTS,
    MUTATIONS,
    ROOT,
    Mutation,
    find_unbound_names,
    mutated,
    table,
)


def functions(source: str) -> set[str]:
    tree = ast.walk(ast.parse(source))
    return {node.name for node in tree if isinstance(node, ast.FunctionDef)}


def test_every_invariant_has_guards_and_a_mutation() -> None:
    numbers = [one.number for one in INVARIANTS]
    assert numbers == sorted(set(numbers))
    assert {*range(1, 19)} <= set(numbers)
    assert {one.invariant for one in MUTATIONS} == set(numbers)
    names = [one.name for one in MUTATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("guard", [guard for one in INVARIANTS for guard in one.guards])
def test_a_guard_exists(guard: str) -> None:
    module, _, function = guard.partition(":")
    assert function in functions(inspect.getsource(importlib.import_module(module)))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_a_mutation_still_applies_and_leaves_a_program(mutation: Mutation) -> None:
    assert not find_unbound_names(mutated(mutation)), "it would fail, and not misbehave"


@pytest.mark.parametrize("test", sorted({test for one in MUTATIONS for test in one.tests}))
def test_a_named_test_exists(test: str) -> None:
    file, _, name = test.partition("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    function = name.partition("[")[0].rpartition("::")[2]
    assert not name or function in functions(source)


def test_the_document_lists_exactly_these() -> None:
    document = (Path(ROOT) / "docs" / "invariants.md").read_text(encoding="utf-8")
    rows = [line for line in document.splitlines() if line.startswith("|")]
    assert rows == [row for row in table() if row]
