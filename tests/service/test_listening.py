"""The socket of ds01d's own, where systemd has none."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from ds01d.errors import ConfigError
from ds01d.service.listening import listen_at


def test_everybody_may_connect(tmp_path: Path) -> None:
    with listen_at(tmp_path / "s"):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o666


def test_one_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    listen_at(tmp_path / "s").close()
    with listen_at(tmp_path / "s"), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(tmp_path / "s"))


def test_one_that_is_in_use_stays(tmp_path: Path) -> None:
    with listen_at(tmp_path / "s"), pytest.raises(ConfigError, match="in use"):
        listen_at(tmp_path / "s")


@pytest.mark.parametrize("is_link", [False, True])
def test_what_is_no_socket_stays(tmp_path: Path, *, is_link: bool) -> None:
    books, path = tmp_path / "gpu-state.json", tmp_path / "gpu-state.json"
    books.write_text("{}")
    if is_link:
        path = tmp_path / "s"
        path.symlink_to(books)
    with pytest.raises(ConfigError, match="cannot listen at"):
        listen_at(path)
    assert books.read_text() == "{}"
    assert path.is_symlink() == is_link
