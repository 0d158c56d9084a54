"""What is kept of hosts is for display: whatever is wrong with it counts as nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ds01d.adapters.fleet.hosts_file import list_hosts
from ds01d.adapters.fleet.last_words import NOTHING_KNOWN, LastWords, find_cache_folder
from ds01d.adapters.fleet.ssh_process import find_control_folder
from ds01d.config import FleetConfig
from ds01d.errors import ConfigError
from ds01d.model.fleet import HostName, LastWord
from ds01d.model.primitives import Wall
from tests.decide.test_fleet_hosts import make_status

NAME = HostName("gpu01")
WORD = LastWord(answered_at=Wall(5.0), unknown_since=Wall(7.0), status=make_status())


def test_a_last_word_is_read_as_it_was_kept(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "ds01d" / "fleet"
    words = LastWords(folder)
    assert words.load(NAME) == NOTHING_KNOWN
    words.keep({NAME: NOTHING_KNOWN})
    words.keep({NAME: WORD})
    assert words.load(NAME) == WORD
    assert [path.name for path in folder.iterdir()] == ["gpu01.json"]
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["text", "fifo", "link", "folder", "version", "foreign"])
def test_what_is_damaged_counts_as_nothing(tmp_path: Path, damage: str) -> None:
    words = LastWords(tmp_path)
    words.keep({NAME: WORD})
    file = tmp_path / "gpu01.json"
    data = file.read_bytes()
    file.unlink()
    match damage:
        case "text":
            file.write_bytes(data[:-5])
        case "fifo":
            os.mkfifo(file)
        case "link":
            (tmp_path / "elsewhere").write_bytes(data)
            file.symlink_to(tmp_path / "elsewhere")
        case "folder":
            file.mkdir()
        case "version":
            file.write_bytes(data.replace(b'"v":"1"', b'"v":"2"'))
        case "foreign":
            if os.geteuid() != 0:
                pytest.skip("needs root")
            file.write_bytes(data)
            os.chown(file, 4242, 4242)
        case _:
            raise AssertionError(damage)
    assert words.load(NAME) == NOTHING_KNOWN


def test_a_status_that_would_not_be_read_again_leaves_what_is_known_beside_it(
    tmp_path: Path,
) -> None:
    """Else a host that has one would be unknown since each look anew."""
    slot = make_status().slots[0]
    # Six bytes of JSON for each.
    large = replace(slot, foreign=("\x01" * 2_000_000,))
    words = LastWords(tmp_path)
    words.keep({NAME: replace(WORD, status=replace(make_status(), slots=(large,)))})
    assert words.load(NAME) == replace(WORD, status=None)


def test_a_place_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = LastWords(tmp_path / "file" / "fleet")
    words.keep({NAME: WORD})
    assert words.load(NAME) == NOTHING_KNOWN


def test_where_caches_and_connections_lie(tmp_path: Path) -> None:
    assert find_cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/ds01d/fleet")
    assert find_cache_folder({"XDG_CACHE_HOME": "x"}).parts[-3:] == (".cache", "ds01d", "fleet")
    assert find_control_folder({}) is None
    assert find_control_folder({"XDG_RUNTIME_DIR": "/" + "x" * 60}) is None
    short = Path("/tmp") / f"ds01-{os.getpid()}"
    short.mkdir(mode=0o700)
    try:
        assert find_control_folder({"XDG_RUNTIME_DIR": str(short)}) == short / "ds01d"
        (short / "ds01d").chmod(0o777)
        assert find_control_folder({"XDG_RUNTIME_DIR": str(short)}) is None
    finally:
        (short / "ds01d").rmdir()
        short.rmdir()


def test_hosts_come_from_the_list_and_the_file_each_once(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# all\ngpu02\n\n gpu03  # new\n")
    fleet = FleetConfig(hosts=("gpu01", "gpu02"), hosts_file=str(file))
    assert list_hosts(fleet) == ("gpu01", "gpu02", "gpu03")
    assert list_hosts(FleetConfig()) == ()


@pytest.mark.parametrize("text", ["-oProxyCommand=x", "a b", "root@gpu01", "../x", "gpu01:22", "ä"])
def test_a_host_that_ssh_could_misunderstand_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "hosts"
    file.write_text(f"gpu01\n{text}\n")
    with pytest.raises(ConfigError, match=r"hosts, line 2: .* is not a valid host name"):
        list_hosts(FleetConfig(hosts_file=str(file)))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        list_hosts(FleetConfig(hosts_file=str(tmp_path / "none")))
