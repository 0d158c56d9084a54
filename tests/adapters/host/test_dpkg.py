"""What is installed: asked through dpkg-query, or read from a list of another host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ds01d.adapters.host.dpkg import NoPackages, list_installed, parse_packages
from ds01d.errors import Malformed
from ds01d.model.cuda import Package


def says(folder: Path, script: str) -> tuple[str, ...]:
    """Make a dpkg-query that does this."""
    program = folder / "dpkg-query"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return (str(program),)


def test_only_what_is_installed_counts(tmp_path: Path) -> None:
    lines = "installed\\ta\\t1-1\\nconfig-files\\tb\\t2\\nnot-installed\\tc\\t\\nrubbish\\n"
    assert list_installed(command=says(tmp_path, f"printf '{lines}'")) == (
        Package(name="a", version="1-1"),
    )


def test_the_real_one_understands_the_question() -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("no dpkg here")
    found = list_installed()
    assert isinstance(found, tuple)
    assert "dpkg" in {one.name for one in found}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo one >&2; echo two >&2; exit 2", "failed (2): two"),
        ("exit 1", "failed (1): no reason given"),
        ("exec sleep 60", "timed out after 0.2 s"),
    ],
)
def test_why_it_does_not_answer(tmp_path: Path, script: str, reason: str) -> None:
    answer = list_installed(command=says(tmp_path, script), timeout_s=0.2)
    if "0.2" not in reason:
        answer = list_installed(command=says(tmp_path, script))
    assert isinstance(answer, NoPackages)
    assert answer.reason.endswith(reason)


def test_a_host_without_dpkg() -> None:
    answer = list_installed(command=("/nonexistent/dpkg-query",))
    assert answer == NoPackages(
        reason="/nonexistent/dpkg-query cannot be run: No such file or directory"
    )


def test_a_list_is_read_as_dpkg_query_prints_it() -> None:
    text = "cuda-12-3\t12.3.2-1\n\nknown-only\t\r\nlibc6:amd64\t2.36-9\r\nspaces  1.0\n"
    assert parse_packages(text, origin="list") == (
        Package(name="cuda-12-3", version="12.3.2-1"),
        Package(name="libc6:amd64", version="2.36-9"),
        Package(name="spaces", version="1.0"),
    )


@pytest.mark.parametrize("line", ["cuda-12-3", "cuda/now 12.3 amd64 [installed]", "\0\1\2"])
def test_another_list_is_refused_by_line(line: str) -> None:
    with pytest.raises(Malformed, match=r"list, line 2: .* write name, tab, version"):
        parse_packages(f"a\t1\n{line}\n", origin="list")
