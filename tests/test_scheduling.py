"""What is dear to create is created once: its file goes to one worker as a whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import WHOLE_FILES, scope_of
from tests.support.scripts import ROOT

DEAR = ("RunningDaemon(", "subprocess.Popen(")


def dear_fixtures(source: str) -> Iterator[str]:
    """Fixtures for a whole module that run a daemon or another program all the time."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            decorators = " ".join(ast.unparse(one) for one in node.decorator_list)
            body = ast.unparse(node)
            if "scope='module'" in decorators and any(word in body for word in DEAR):
                yield node.name


@pytest.mark.parametrize(
    "file", sorted((ROOT / "tests" / "integration").glob("test_*.py")), ids=lambda file: file.stem
)
def test_a_file_with_a_daemon_for_all_its_tests_is_listed(file: Path) -> None:
    name = str(file.relative_to(ROOT))
    if list(dear_fixtures(file.read_text(encoding="utf-8"))):
        assert name in WHOLE_FILES


def test_the_scheduler_keeps_these_together_and_no_others() -> None:
    for file in (*WHOLE_FILES, "tests/machine/test_attacks.py"):
        assert (ROOT / file).exists()
        assert scope_of(f"{file}::test_one") == scope_of(f"{file}::TestMany::test_another[x::y]")
    other = "tests/integration/test_daemon.py"
    assert scope_of(f"{other}::test_one") != scope_of(f"{other}::test_another")
