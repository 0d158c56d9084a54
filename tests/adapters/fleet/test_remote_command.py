"""A command on another host: finished, never begun, or uncertain; over a real sshd."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.fleet.remote_command import RemoteRun
from ds01d.model.fleet import HostName, RemoteEnd, RemoteResult
from tests.support.books import until
from tests.support.fleet import FleetSite, fleet_site

HOSTILE = ["", "a b", "$(id)", "`id`", "';id;'", '"', "\\", "-x", "*", "!!", "~", "ä", "\x7f"]


@pytest.fixture(scope="module")
def site() -> Iterator[FleetSite]:
    with fleet_site() as made:
        made.add_host("gpu01")
        yield made


@pytest.fixture
def lines(site: FleetSite, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("PATH", site.environ["PATH"])
    return []


def run(site: FleetSite, lines: list[str], script: str, *words: str) -> RemoteResult:
    site.add_command(site.ssh.hosts["gpu01"], "work", script)
    return RemoteRun(HostName("gpu01"), ["work", *words], lines.append).run()


def test_words_arrive_as_they_are(site: FleetSite, lines: list[str]) -> None:
    script = 'exec python3 -c "import json,sys; print(json.dumps(dict(words=sys.argv[1:])))" "$@"'
    result = run(site, lines, script, *HOSTILE)
    assert result.end is RemoteEnd.FINISHED
    assert result.document == {"words": HOSTILE}
    assert lines == []


def test_progress_is_passed_on_and_the_result_is_kept(site: FleetSite, lines: list[str]) -> None:
    script = "printf 'one\\ntwo \\033[2J\\n' >&2; echo '{\"created\": false}'; exit 1"
    result = run(site, lines, script)
    assert (result.end, result.status) == (RemoteEnd.FINISHED, 1)
    assert result.document == {"created": False}
    assert lines == ["one", "two \x1b[2J"]


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 1", RemoteEnd.FINISHED),
        ("exit 2", RemoteEnd.FINISHED),
        ("echo nonsense; exit 1", RemoteEnd.FINISHED),
        ("exit 0", RemoteEnd.UNCERTAIN),
        ("exit 255", RemoteEnd.UNCERTAIN),
        ("kill -9 $$", RemoteEnd.UNCERTAIN),
        ("exit 143", RemoteEnd.UNCERTAIN),
        ("echo '{\"created\": tr'", RemoteEnd.UNCERTAIN),
        ("head -c 3000000 /dev/zero", RemoteEnd.UNCERTAIN),
    ],
)
def test_how_it_ended(site: FleetSite, lines: list[str], script: str, end: RemoteEnd) -> None:
    result = run(site, lines, script)
    assert (result.end, result.document) == (end, None)


def test_a_command_that_is_not_installed_has_done_nothing(
    site: FleetSite, lines: list[str]
) -> None:
    result = RemoteRun(HostName("gpu01"), ["no-such-command"], lines.append).run()
    assert (result.end, result.status) == (RemoteEnd.FINISHED, 127)
    assert "no-such-command: not found" in result.reason


def test_a_host_that_cannot_be_reached_has_begun_nothing(site: FleetSite, lines: list[str]) -> None:
    dead = site.ssh.hosts.get("dead") or site.add_host("dead")
    dead.stop()
    result = RemoteRun(HostName("dead"), ["work"], lines.append).run()
    assert result.end is RemoteEnd.NOT_STARTED
    assert "Connection refused" in result.reason


def test_a_connection_that_is_cut_in_the_middle_is_uncertain(
    site: FleetSite, lines: list[str], tmp_path: Path
) -> None:
    host = site.ssh.hosts["gpu01"]
    begun, result = tmp_path / "begun", [RemoteResult(end=RemoteEnd.FINISHED)]
    script = f"echo pulling >&2; echo $$ > {begun}; exec sleep 600"

    def call() -> None:
        result[0] = run(site, lines, script)

    caller = threading.Thread(target=call)
    caller.start()
    until(lambda: begun.exists() and begun.read_text().endswith("\n"))
    host.cut_connections()
    caller.join(60)
    os.kill(int(begun.read_text()), signal.SIGKILL)
    assert result[0].end is RemoteEnd.UNCERTAIN
    assert lines[0] == "pulling"


def test_without_the_word_nothing_begins(site: FleetSite, tmp_path: Path) -> None:
    """What the other end does when the connection is lost before the word came."""
    import subprocess  # noqa: PLC0415 - for this alone

    ran = tmp_path / "ran"
    site.add_command(site.ssh.hosts["gpu01"], "work", f"touch {ran}; echo {json.dumps('{}')}")
    remote = RemoteRun(HostName("gpu01"), ["work"], print)._build_remote()
    command = ["ssh", "-o", "BatchMode=yes", "gpu01", remote]
    for word in ("", "yes\n"):
        done = subprocess.run(
            command,
            env=site.environ,
            input=word,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 75
        assert not ran.exists()
