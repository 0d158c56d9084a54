"""container-logger.sh: what shells write is what ds01d reads, and no caller ever notices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.adapters.books.operations_format import escape_field, parse_line
from ds01d.model.books import LogLine
from tests.support.scripts import ROOT

LOGGER = ROOT / "share" / "container-logger.sh"
SHELLS = ("dash", "bash")
TOOLS = ("awk", "date", "dd", "tail", "timeout", "tr")
ONE = ("create_start", "alice", "train._.1001", "1.0", "pending", "pytorch 2.4")

in_each_shell = pytest.mark.parametrize("shell", SHELLS)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that it needs besides a shell; not `logger`, so that no test talks to this machine."""
    folder = tmp_path_factory.mktemp("tools")
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def run(
    shell: str,
    script: str,
    *words: str | bytes,
    log: Path | None,
    tools: Path,
    env: Mapping[str, str] | None = None,
    given: bytes = b"",
) -> str:
    """Run a script that has sourced it, to a good end without a word on stderr; what it printed."""
    where = {} if log is None else {"DS01_OPERATIONS_LOG": str(log)}
    path = shutil.which(shell)
    assert path is not None
    result = subprocess.run(
        [path, "-c", f'. "{LOGGER}"\n{script}', shell, *words],
        env={"PATH": str(tools), "LC_ALL": "C.UTF-8", **where, **(env or {})},
        input=given,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout.decode()


def lines_of(log: Path) -> list[LogLine]:
    """Every line, each understood; empty ones say nothing, and come where many write at once."""
    texts = log.read_text("utf-8").split("\n")
    assert not texts.pop()
    found = [parse_line(text) for text in texts if text]
    understood = [one for one in found if one is not None]
    assert len(understood) == len(found)
    return understood


def words_of(one: LogLine) -> tuple[str, ...]:
    return (one.operation, one.user, one.container, one.gpu, one.status, one.details)


@in_each_shell
@pytest.mark.parametrize("kept", ["", "readonly TZ; "])
def test_the_time_is_that_of_the_host_whatever_tz_the_caller_has(
    shell: str, kept: str, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TZ", raising=False)
    time.tzset()
    log = tmp_path / "log"
    script = f'{kept}log_container_operation "$@"; printf %s "$TZ"'
    said = run(shell, script, *ONE, log=log, tools=tools, env={"TZ": "XYZ-14"})
    assert said == "XYZ-14"  # the caller's own stays
    (one,) = lines_of(log)
    if not kept:  # which not even a subshell can take back
        assert abs(one.at - time.time()) < 3600


# --- the format -------------------------------------------------------------------------------

NASTY: tuple[str, ...] = (
    "|",
    "\n",
    "\n\n",
    "\\",
    "\\n",
    "\\x7c",
    "\r",
    "\t",
    "\x01",
    "\x7f",
    "'",
    '"',
    "$(id)",
    "`",
)
NASTY += (
    "%s%n",
    "-n",
    "--",
    "*",
    "~",
    "\x81",
    "\x88",
    "\u2028",
    "\u202e",
    "ü",
    "容器",
    "\U0001f600",
)
pieces = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"])))
texts = st.lists(pieces, max_size=5).map("".join).map(lambda text: text.replace("\0", "").encode())
fields = st.one_of(texts, st.binary(max_size=12).map(lambda data: data.replace(b"\0", b"")))


def as_python(field: bytes) -> str:
    """What a Python program is given of such an argument."""
    return field.decode("utf-8", "surrogateescape")


@in_each_shell
@settings(max_examples=15)
@given(words=st.lists(fields, min_size=18, max_size=18))
def test_what_a_shell_wrote_is_read_again(
    shell: str, words: list[bytes], tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("log") / "operations.log"
    calls = 'while [ $# -gt 0 ]; do log_container_operation o u c g s "$1"; shift; done'
    singles, six = words[:12], words[12:]
    run(shell, calls, *singles, log=log, tools=tools)
    run(shell, 'log_container_operation "$@"', *six, log=log, tools=tools)
    found = lines_of(log)
    assert [one.details for one in found[:-1]] == list(map(as_python, singles))
    assert words_of(found[-1]) == tuple(map(as_python, six))
    assert all(text.isprintable() or _unassigned(text) for text in log.read_text().splitlines())


def _unassigned(text: str) -> bool:
    return all(one.isprintable() or unicodedata.category(one) == "Cn" for one in text)


@in_each_shell
def test_the_line_is_the_same_that_the_daemon_writes(
    shell: str, tools: Path, tmp_path: Path
) -> None:
    """Every sign that Unicode had when the oldest Python of ours was made; and bytes of no sign."""
    known = [sign for sign in map(chr, range(1, 0x11_0000)) if sign.encode(errors="ignore")]
    assigned = "".join(one for one in known if unicodedata.category(one) != "Cn")
    parts = [assigned[at : at + 20_000] for at in range(0, len(assigned), 20_000)]
    log = tmp_path / "operations.log"
    for part in [*parts[:8], parts[-1]]:
        run(shell, 'log_container_operation o u c g s "$1"', part.encode(), log=log, tools=tools)
    broken = b"\xff \xc3 \xe2\x82 \xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf \x80 \xf0\x9f\x98"
    run(shell, 'log_container_operation o u c g s "$1"', broken, log=log, tools=tools)
    written = [line.split("|", 6)[6] for line in log.read_text().split("\n")[:-1]]
    expected = [*parts[:8], parts[-1], as_python(broken)]
    assert written == [escape_field(one) for one in expected]


@in_each_shell
def test_a_plain_line_is_plain(shell: str, tools: Path, tmp_path: Path) -> None:
    log = tmp_path / "operations.log"
    run(shell, 'log_container_operation "$@"', *ONE, log=log, tools=tools)
    run(shell, "log_container_operation stop", log=log, tools=tools)
    first, second = log.read_text().splitlines()
    assert first[19:] == "|create_start|alice|train._.1001|1.0|pending|pytorch 2.4"
    assert second[19:] == "|stop|||||"


@in_each_shell
def test_a_line_that_somebody_left_open_is_ended_first(
    shell: str, tools: Path, tmp_path: Path
) -> None:
    log = tmp_path / "operations.log"
    log.write_text("half a line")
    run(shell, 'log_container_operation "$@"', *ONE, log=log, tools=tools)
    first, second = log.read_text().splitlines()
    assert first == "half a line"
    assert parse_line(second) is not None


# --- many writers -----------------------------------------------------------------------------

PYTHON_WRITER = """
import sys
from pathlib import Path
from ds01d.adapters.books.operations_log import OperationsLog
from ds01d.model.primitives import Wall
from ds01d.model.books import LogLine
log = OperationsLog(Path(sys.argv[1]))
for number in range(200):
    details = f"{number} " + ("|\\n" * 5000 if number % 50 == 7 else "")
    log.append(LogLine(at=Wall(1e9), operation="o", user=sys.argv[2], container="c", gpu="g",
                       status="s", details=details))
"""
SHELL_WRITER = """
long=; for i in 1 2 3 4 5 6 7 8 9 10; do long="$long|$long
"; done
number=0
while [ $number -lt 200 ]; do
    more=; case $number in 7 | 57 | 107 | 157) more=$long ;; esac
    log_container_operation o "$1" c g s "$number $more"
    number=$((number + 1))
done
"""


@pytest.mark.timeout(180)
def test_eight_writers_of_three_kinds_never_mix(tools: Path, tmp_path: Path) -> None:
    log = tmp_path / "operations.log"
    environment = {"PATH": str(tools), "DS01_OPERATIONS_LOG": str(log), "PYTHONPATH": str(ROOT)}
    commands: dict[str, Sequence[str]] = {}
    for number in range(3):
        for shell in SHELLS:
            name = f"{shell}{number}"
            where = str(shutil.which(shell))
            commands[name] = [where, "-c", f'. "{LOGGER}"\n{SHELL_WRITER}', shell, name]
    for name in ("python0", "python1"):
        commands[name] = [sys.executable, "-c", PYTHON_WRITER, str(log), name]
    writers = [subprocess.Popen(one, env=environment) for one in commands.values()]
    assert [one.wait() for one in writers] == [0] * 8
    found = lines_of(log)
    told = {name: [one.details for one in found if one.user == name] for name in commands}
    for name, details in told.items():
        assert [one.split(" ")[0] for one in details] == [str(n) for n in range(200)], name
        assert sum(len(one) > 1000 for one in details) == 4
    assert len(found) == 1600


@in_each_shell
def test_a_line_is_one_write_however_long(shell: str, tools: Path, tmp_path: Path) -> None:
    """Which dd itself counts."""
    log = tmp_path / "operations.log"
    words = tmp_path / "words"
    folder = tmp_path / "tools"
    shutil.copytree(tools, folder, symlinks=True)
    dd = (folder / "dd").readlink()
    (folder / "dd").unlink()
    (folder / "dd").write_text(f'#!/bin/sh\nLC_ALL=C {dd} "$@" 2>>"{words}"\n')
    (folder / "dd").chmod(0o755)
    for size in (0, 5000, 60_000):
        run(shell, 'log_container_operation o u c g s "$1"', "ü" * size, log=log, tools=folder)
    told = [line for line in words.read_text().splitlines() if line.endswith("records out")]
    assert told == ["0+1 records out"] * 3
    assert [len(one.details) for one in lines_of(log)] == [0, 5000, 60_000]


# --- where the log is -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[logs]\noperations = "{log}"',
        "\n[docker]\noperations = 1\n[logs] # here\nlevel = 'info'\n  operations='{log}' # so\n",
        '[ logs ]\noperations\t=\t"{log}"\n[daemon]\noperations = "/nowhere"\n',
        'logs.operations = "{log}"\n',
    ],
)
@in_each_shell
def test_the_configuration_names_the_log(
    shell: str, text: str, tools: Path, tmp_path: Path
) -> None:
    log, file = tmp_path / "own.log", tmp_path / "ds01d.toml"
    file.write_text(text.replace("{log}", str(log)))
    env = {"DS01D_CONFIG": str(file)}
    run(shell, 'log_container_operation "$@"', *ONE, log=None, tools=tools, env=env)
    assert words_of(lines_of(log)[0]) == ONE


@in_each_shell
def test_the_environment_goes_before_the_configuration(
    shell: str, tools: Path, tmp_path: Path
) -> None:
    log, file = tmp_path / "own.log", tmp_path / "ds01d.toml"
    file.write_text(f'[logs]\noperations = "{tmp_path / "other.log"}"\n')
    env = {"DS01D_CONFIG": str(file)}
    run(shell, 'log_container_operation "$@"', *ONE, log=log, tools=tools, env=env)
    assert [one.name for one in tmp_path.glob("*.log")] == ["own.log"]


# --- the caller -------------------------------------------------------------------------------

STRICT = {"dash": "set -eu", "bash": "set -eEuo pipefail; trap 'echo ERR' ERR"}


def spoil(kind: str, log: Path) -> None:
    """Make the log something that takes no line."""
    match kind:
        case "no folder":
            pass
        case "a folder":
            log.mkdir(parents=True)
        case "a link":
            log.parent.mkdir()
            log.symlink_to(log.with_name("elsewhere"))
        case "a fifo":
            log.parent.mkdir()
            os.mkfifo(log)
        case _:
            log.parent.mkdir()
            log.symlink_to("/dev/full")


@pytest.mark.parametrize("kind", ["no folder", "a folder", "a link", "a fifo", "full"])
@in_each_shell
def test_a_log_that_cannot_be_written_is_no_trouble_of_the_callers(
    shell: str, kind: str, tools: Path, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "operations.log"
    spoil(kind, log)
    script = f'{STRICT[shell]}\nlog_container_operation "$@"\necho "on, $?"'
    assert run(shell, script, *ONE, log=log, tools=tools) == "on, 0\n"
    assert not log.with_name("elsewhere").exists()


@in_each_shell
def test_nor_is_a_host_without_any_program(shell: str, tmp_path: Path) -> None:
    script = f'{STRICT[shell]}\nlog_container_operation "a|b"\necho on'
    assert run(shell, script, log=tmp_path / "log", tools=tmp_path / "none") == "on\n"


@in_each_shell
def test_nor_is_a_missing_field_or_an_odd_setting(shell: str, tools: Path, tmp_path: Path) -> None:
    """Nothing of the caller's is changed either."""
    log = tmp_path / "operations.log"
    script = f"""{STRICT[shell]}
set -fC
IFS=0123456789/ab
line=mine log=mine field=mine text=mine table=mine escaped=mine found=mine start=mine
dd() {{ echo wrong; return 1; }}
date() {{ echo wrong; return 1; }}
log_container_operation create_start alice
log_container_operation create_start 'a|b' '' '' '' 'x
y'
echo "$line $log $field $text $table $escaped $found $start $-"
"""
    before = "mine " * 8
    assert run(shell, script, log=log, tools=tools).startswith(before)
    first, second = lines_of(log)
    assert words_of(first) == ("create_start", "alice", "", "", "", "")
    assert words_of(second) == ("create_start", "a|b", "", "", "", "x\ny")


@in_each_shell
def test_it_eats_nothing_of_the_callers_input(shell: str, tools: Path, tmp_path: Path) -> None:
    log = tmp_path / "operations.log"
    script = 'while read -r name; do log_container_operation stop u "$name|"; done; echo done'
    assert run(shell, script, log=log, tools=tools, given=b"a\nb\nc\n") == "done\n"
    assert [one.container for one in lines_of(log)] == ["a|", "b|", "c|"]


# --- syslog -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1])
@in_each_shell
def test_syslog_is_told_the_same_line(shell: str, code: int, tools: Path, tmp_path: Path) -> None:
    folder, told, log = tmp_path / "tools", tmp_path / "told", tmp_path / "operations.log"
    shutil.copytree(tools, folder, symlinks=True)
    script = f"#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{told}'\nexit {code}\n"
    (folder / "logger").write_text(script)
    (folder / "logger").chmod(0o755)
    strict = f'{STRICT[shell]}\nlog_container_operation "$@"\necho on'
    assert run(shell, strict, *ONE[:5], "a|b", log=log, tools=folder) == "on\n"
    line = "create_start|alice|train._.1001|1.0|pending|a\\x7cb"
    assert log.read_text()[20:] == f"{line}\n"
    written = log.read_text().rstrip("\n")
    assert told.read_text().splitlines() == ["-t", "ds01-container", "--", written]


@in_each_shell
def test_syslog_is_told_where_the_log_cannot_be_written(
    shell: str, tools: Path, tmp_path: Path
) -> None:
    folder, told = tmp_path / "tools", tmp_path / "told"
    shutil.copytree(tools, folder, symlinks=True)
    (folder / "logger").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{told}'\n")
    (folder / "logger").chmod(0o755)
    run(shell, 'log_container_operation "$@"', *ONE, log=tmp_path / "no" / "log", tools=folder)
    line = parse_line(told.read_text().splitlines()[-1])  # the same that the file would have
    assert line is not None
    assert words_of(line) == ONE
