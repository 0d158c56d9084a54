"""What pyproject.toml declares: locked for every Python, documented, and imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
DECLARED: Any = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())


def requirements(*extras: str) -> Iterator[Requirement]:
    """Those of ds01d, of these extras, and of the extras that they name."""
    project = DECLARED["project"]
    rows = [project["dependencies"], *(project["optional-dependencies"][x] for x in extras)]
    for requirement in map(Requirement, [row for group in rows for row in group]):
        if requirement.name == "ds01d":
            yield from requirements(*requirement.extras)
        else:
            yield requirement


def locked() -> list[tuple[Requirement, int]]:
    """Each pin of requirements.lock, and how many hashes it has."""
    text = (ROOT / "requirements.lock").read_text(encoding="ascii").replace("\\\n", " ")
    return [
        (Requirement(line.partition(" --hash")[0]), line.count("--hash=sha256:"))
        for line in text.splitlines()
    ]


def applies(requirement: Requirement, python: str) -> bool:
    environment = {"python_version": python, "python_full_version": f"{python}.9"}
    return requirement.marker is None or requirement.marker.evaluate(environment)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_one_version_that_fits_and_its_hashes(python: str) -> None:
    pins: dict[str, str] = {}
    for pin, hashes in locked():
        assert hashes > 0, pin
        if applies(pin, python):
            name = canonicalize_name(pin.name)
            assert name not in pins, name
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            pins[name] = specifier.version
    # What builds ds01d and systemd-python comes out of it by PIP_CONSTRAINT.
    assert {"setuptools", "wheel", "hatchling"} <= {*pins}
    build = map(Requirement, DECLARED["build-system"]["requires"])
    for wanted in (*requirements("dev"), *build):
        if applies(wanted, python):
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted


def test_each_has_its_reason() -> None:
    told = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    names = {requirement.name for requirement in requirements("dev", "fuzz")}
    assert {name for name in names if f"`{name}`" not in told} == set()


def test_a_lower_bound_for_each_and_one_for_all_extras() -> None:
    """What has no lower bound would be tested with the oldest version that ever was."""
    bounds: dict[str, set[str]] = {}
    for requirement in requirements("dev", "fuzz"):
        bounds.setdefault(requirement.name, set()).add(str(requirement.specifier))
        assert ">=" in str(requirement.specifier), requirement
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}


def imported() -> set[str]:
    """The packages that some module of ds01d imports, without Python's own and ours."""
    names: set[str] = set()
    for file in (ROOT / "ds01d").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"ds01d"}


def test_ds01d_imports_what_is_declared_and_nothing_else() -> None:
    own = packages_distributions()
    distributions = {canonicalize_name(own[name][0]) for name in imported()}
    declared = {canonicalize_name(x.name) for x in requirements("dashboard")}
    assert distributions | {"tomli"} == declared
    # msgspec reads TOML with it where Python has no tomllib.
    (tomli,) = (x for x in requirements("dashboard") if x.name == "tomli")
    assert str(tomli.marker) == 'python_version < "3.11"'
