"""A look at the configuration says where ds01d listens as its parser does, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds01d.cli.base import quick_socket
from ds01d.cli.base.quick_socket import find_config, find_socket
from ds01d.config_file import load_config

ROOT = Path(__file__).parents[3]


def look(tmp_path: Path, text: str) -> tuple[str, str]:
    """What the look says, and what the parser says."""
    file = tmp_path / "ds01d.toml"
    file.write_text(text, encoding="utf-8")
    return find_socket(str(file)), str(load_config(file, {}).booking_socket or "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# [service]\n# socket = 'x'\n",
        '[service]\nsocket = "/tmp/a.sock"\n',
        '[service]\n\tsocket="/tmp/a b.sock" # here\n[docker]\nurl = "unix:///x"\n',
        '[service]\nsocket = ""\n',
        '[daemon]\nmode = "repair"\n[service]\ncontainers = true\n',
        '[service]  # who may call\nsocket = "/tmp/a.sock"\n',
        (ROOT / "etc" / "ds01d.toml").read_text(encoding="utf-8"),
    ],
)
def test_a_plain_configuration_needs_no_parser(tmp_path: Path, text: str) -> None:
    seen, parsed = look(tmp_path, text)
    assert seen == parsed


@pytest.mark.parametrize(
    "text",
    [
        'service.socket = "/tmp/a.sock"\n',
        'service = { socket = "/tmp/a.sock" }\n',
        '[service]\n"socket" = "/tmp/a.sock"\n',
        "[service]\nsocket = '/tmp/a.sock'\n",
        '[service]\nsocket = "/tmp/\\u0061.sock"\n',
        '[service]\nsocket = """/tmp/a.sock"""\n',
        '[ service ]\nsocket = "/tmp/a.sock"\n',
        '["service"]\nsocket = "/tmp/a.sock"\n',
        '[daemon]\nmode = "observe"\n',
        "[daemon]\nmode = 'observe'\n",
        'daemon.mode = "observe"\n',
        'daemon = { mode = "observe" }\n',
        '[service]\nsocket = "/tmp/a#b.sock"\n',
    ],
)
def test_whatever_else_is_left_to_the_parser(tmp_path: Path, text: str) -> None:
    seen, parsed = look(tmp_path, text)
    assert seen in ("", parsed)
    assert seen == "" or "a#b" not in text


def test_nothing_is_read_from_a_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for file in (tmp_path / "missing", tmp_path / "fifo", tmp_path):
        assert find_socket(str(file)) in ("", "/run/ds01d/booking.sock")
    assert find_socket(str(tmp_path / "missing")) == ""


def test_only_the_default_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_socket, "DEFAULT_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.delenv("DS01D_CONFIG", raising=False)
    assert find_socket(find_config()) == "/run/ds01d/booking.sock"


@pytest.mark.parametrize("name", ["SUDO_UID", "PKEXEC_UID", "DOAS_USER"])
@pytest.mark.skipif(os.geteuid() != 0, reason="is about root's rights")
def test_root_for_another_user_goes_by_the_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1001")
    assert look(tmp_path, '[service]\nsocket = "/tmp/a.sock"\n')[0] == ""
