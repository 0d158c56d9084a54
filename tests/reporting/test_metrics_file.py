"""The textfile: whole, readable by node_exporter, kept up to date, and gone at the end."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ds01d.reporting.metrics_file import Textfile
from tests.support.books import until


@contextmanager
def writing(path: Path, render: Callable[[], bytes] = lambda: b"a 1\n") -> Iterator[list[str]]:
    told: list[str] = []
    file = Textfile(path, render, told.append, every_s=0.02)
    file.start()
    try:
        yield told
    finally:
        file.close()


def test_everybody_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "ds01d.prom"
    before = os.umask(0o077)
    try:
        with writing(path) as told:
            until(lambda: told)
            assert path.read_bytes() == b"a 1\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)
    assert set(told) == {""}


def test_it_is_written_anew_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "ds01d.prom"
    numbers = iter(range(10**9))
    with writing(path, lambda: b"a %d\n" % next(numbers)):
        until(lambda: path.exists() and path.read_bytes() >= b"a 3\n")
        assert {one.suffix for one in tmp_path.iterdir()} <= {".prom", ".new"}
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_written_that_is_told_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "collector" / "ds01d.prom"
    with writing(path) as told:
        until(lambda: told)
        assert "No such file or directory" in told[0]
        path.parent.mkdir()
        until(path.exists)
        until(lambda: told[-1] == "")
        path.unlink()
        path.mkdir()  # somebody's directory is in the way
        until(lambda: told[-1])
    assert list(path.parent.iterdir()) == [path]


def test_a_link_in_its_way_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "ds01d.prom", tmp_path / "victim"
    victim.write_bytes(b"mine")
    path.symlink_to(victim)
    path.with_name("ds01d.prom.new").symlink_to(victim)
    with writing(path) as told:
        until(lambda: told)
        assert (path.read_bytes(), path.is_symlink()) == (b"a 1\n", False)
    assert victim.read_bytes() == b"mine"


def test_nothing_to_tell_leaves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "ds01d.prom"
    calls: list[int] = []

    def render() -> bytes:
        calls.append(1)
        return b"a 1\n" if len(calls) == 1 else b""

    with writing(path, render):
        until(lambda: len(calls) > 3)
        assert path.read_bytes() == b"a 1\n"
