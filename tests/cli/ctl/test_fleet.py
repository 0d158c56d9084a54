"""`ds01ctl fleet` and the commands on other hosts, over a real sshd."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from ds01d.adapters.fleet.look import MAX_STATUS_BYTES, MOST_CONNECTIONS, FleetLook
from ds01d.adapters.fleet.view_file import read_view, write_view
from ds01d.cli.base.context import Invocation, host_environment
from ds01d.cli.containers.main import create
from ds01d.cli.ctl.fleet_publish import FleetPublisher
from ds01d.config import Config
from ds01d.config_file import parse_config
from ds01d.errors import ConfigError
from ds01d.model.primitives import Wall
from simulation.ports import find_free_port
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.fleet import FleetSite, fleet_site
from tests.support.schemas import check_document
from tests.support.web import request, serving

NAMES = ("gpu01", "gpu02", "gpu03")
CREATED = """
echo "$*" >> {log}
echo 'container: pulling \033[2Jimage' >&2
echo '{{"created": true, "container": "train._.0", "image": "i",'
echo '"slots": ["1.2"], "started": true}}'
"""
NO_ROOM = """
echo "$*" >> {log}
case "$*" in
    *--dry-run*) echo '{{"planned": true, "plan": {{"image_present": {image}}}}}'; exit ;;
esac
echo '{{"created": false, "refusal": "NO_GPU_AVAILABLE",'
echo '"reason": "no GPU: NO_GPU_AVAILABLE (1 slot)"}}'
exit 1
"""


@pytest.fixture(scope="module")
def started() -> Iterator[FleetSite]:
    with fleet_site() as made:
        for name in NAMES:
            made.add_host(name)
        yield made


@pytest.fixture
def site(started: FleetSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetSite:
    # Of what runs in this process: on a busy machine a login takes longer than 5 s now and then.
    monkeypatch.setattr(FleetLook.ask_hosts, "__defaults__", (60.0,))
    started.cache = tmp_path
    for number, host in enumerate(started.ssh.hosts.values(), 1):
        started.publish(host, free=number, held=1)
        for command in host.commands.iterdir():
            command.unlink()
    started.configure(NAMES)
    return started


def add_script(site: FleetSite, name: str, script: str, **values: str) -> Path:
    host = site.ssh.hosts[name]
    log = host.folder / "calls"
    log.unlink(missing_ok=True)
    site.add_command(host, "container-create", script.format(log=log, **values))
    return log


def test_all_hosts_are_shown_with_their_ages(site: FleetSite) -> None:
    done = site.run("ds01ctl", "fleet", "status")
    assert (done.exit_code, done.stderr) == (0, "")
    heading, *rows, total = done.stdout.splitlines()
    assert heading.split() == ["HOST", "STATE", "AGE", "SLOTS", "FREE", "HELD", "FOREIGN"]
    assert [row.split()[:2] + row.split()[-4:] for row in rows] == [
        ["gpu01", "ok", "2", "1", "1", "0"],
        ["gpu02", "ok", "3", "2", "1", "0"],
        ["gpu03", "ok", "4", "3", "1", "0"],
    ]
    assert total == "6 of 9 slots free on 3 hosts"


def test_an_unknown_host_is_neither_free_nor_empty(site: FleetSite) -> None:
    site.run("ds01ctl", "fleet", "status")
    site.write_status(site.ssh.hosts["gpu03"], b"\x1b[2Jgarbage")
    done = site.run("ds01ctl", "fleet", "status")
    assert done.exit_code == 1
    assert "5 of 9" not in done.stdout
    assert "3 of 5 slots free on 2 hosts; 1 host unknown" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("gpu03"))
    assert row.split() == ["gpu03", "unknown", "-", "-", "-", "-", "-"]
    assert "unknown for 0 s: its status is not one of ds01d" in done.stdout
    assert "1 of 4 slots held by alice" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr

    document = json.loads(site.run("ds01ctl", "fleet", "status", "--json").stdout)
    assert document["total"] == {"hosts": 3, "unknown": 1, "slots": 5, "free": 3}
    assert [host["host"] for host in document["unknown"]] == ["gpu03"]
    unknown = document["hosts"][2]
    assert (unknown["state"], unknown["slots"]) == ("unknown", None)
    assert len(unknown["last_slots"]) == 4
    assert unknown["unknown_since"]

    free = site.run("ds01ctl", "fleet", "free", "--json")
    assert free.exit_code == 1
    assert {entry["host"] for entry in json.loads(free.stdout)["free"]} == {"gpu01", "gpu02"}

    where = site.run("ds01ctl", "fleet", "where", "gpu03-3")
    assert where.exit_code == 1
    assert "gpu03-3._.1001" in where.stdout

    site.publish(site.ssh.hosts["gpu03"], free=3, held=1)
    assert site.run("ds01ctl", "fleet", "status").exit_code == 0


def test_an_old_status_does_not_count(site: FleetSite) -> None:
    site.publish(site.ssh.hosts["gpu02"], free=2, written_at=1000.0, next_sweep=1060.0)
    done = site.run("ds01ctl", "fleet", "free")
    assert done.exit_code == 1
    assert "gpu02: unknown for 0 s: ds01d there published its last status" in done.stdout


def test_profiles_and_nobody(site: FleetSite) -> None:
    free = site.run("ds01ctl", "fleet", "free", "--profile", "9g.90gb")
    assert (free.exit_code, free.stdout) == (0, "0 of 0 slots free on 3 hosts\n")
    where = site.run("ds01ctl", "fleet", "where", "zoe\x1b[2J")
    assert where.exit_code == 0
    assert where.stdout == 'no "zoe\\x1b[2J" on 3 known hosts\n'


def test_a_container_is_created_where_the_fewest_are_free(site: FleetSite) -> None:
    logs = {name: add_script(site, name, CREATED) for name in NAMES}
    done = site.run("container-create", "train", "pytorch", "--any-host", "--gpus", "2")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "train._.0 runs on GPU 1.2 of gpu02, from i",
        "Go on there: ssh -t gpu02 container-enter train",
    ]
    assert done.stderr == "container-create: container: pulling \\x1b[2Jimage\n"
    assert logs["gpu02"].read_text() == "--json --gpus 2 -- train pytorch\n"
    assert not logs["gpu01"].exists()
    assert not logs["gpu03"].exists()

    done = site.run("container-create", "train", "pytorch", "--not-host", "gpu01", "--json")
    document = json.loads(done.stdout)
    assert (document["host"], document["created"]) == ("gpu02", True)
    assert (document["container"], document["slots"]) == ("train._.0", ["1.2"])
    done = site.run("container-create", "t", "pytorch", "--any-host", "--gpus", "9", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["host"], document["created"]) == (1, None, False)
    assert document["refusal"] == "NO_GPU_AVAILABLE"


def test_of_equal_hosts_the_one_with_the_image_is_asked(site: FleetSite) -> None:
    for host in site.ssh.hosts.values():
        site.publish(host, free=1)
    logs = [
        add_script(site, name, NO_ROOM, image="true" if name == "gpu03" else "false")
        for name in NAMES
    ]
    done = site.run("container-create", "train", "pytorch", "--any-host")
    assert done.exit_code == 1
    assert [log.read_text().count("\n") for log in logs] == [2, 2, 2]
    hosts = [line.split()[1] for line in done.stderr.splitlines() if "; not there" in line]
    assert hosts == ["gpu03:", "gpu01:", "gpu02:"]


def test_who_loses_a_race_goes_on_to_the_next_host(site: FleetSite) -> None:
    add_script(site, "gpu01", NO_ROOM, image="false")
    add_script(site, "gpu02", CREATED)
    done = site.run("container-create", "train", "pytorch", "--any-host")
    assert done.exit_code == 0
    assert " of gpu02, " in done.stdout
    assert "gpu01: no GPU: NO_GPU_AVAILABLE (1 slot); not there" in done.stderr


def test_another_refusal_is_the_last_word(site: FleetSite) -> None:
    site.add_command(
        site.ssh.hosts["gpu01"],
        "container-create",
        'echo \'{"created": false, "refusal": "USER_AT_LIMIT", "reason": "at limit"}\'; exit 1',
    )
    log = add_script(site, "gpu02", CREATED)
    done = site.run("container-create", "train", "pytorch", "--any-host")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "container-create: gpu01: at limit\n"
    assert not log.exists()


def test_a_connection_cut_in_the_middle_is_said_and_nothing_is_tried_elsewhere(
    site: FleetSite, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    site.add_command(
        site.ssh.hosts["gpu01"], "container-create", f"echo $$ > {begun}; exec sleep 600"
    )
    log = add_script(site, "gpu02", CREATED)
    process = site.start("container-create", "train", "pytorch", "--any-host")

    def cut() -> None:
        until(lambda: begun.exists() and begun.read_text().endswith("\n"))
        site.ssh.hosts["gpu01"].cut_connections()

    cutter = threading.Thread(target=cut)
    cutter.start()
    output, errors = process.communicate(timeout=120)
    cutter.join()
    # What was begun there goes on: that is why it may exist.
    os.kill(int(begun.read_text()), signal.SIGKILL)
    assert (process.returncode, output) == (1, "")
    assert "container-create: gpu01: the connection was lost in the middle (" in errors
    assert 'container "train" may exist there, and is not tried elsewhere' in errors
    assert "look: ds01ctl fleet where train, or ssh gpu01 container-list --all" in errors
    assert not log.exists()


def test_a_host_that_cannot_be_reached_has_created_nothing(site: FleetSite) -> None:
    log = add_script(site, "gpu02", CREATED)
    site.ssh.hosts["gpu01"].stop()
    try:
        done = site.run("container-create", "t", "pytorch", "--host", "gpu01", "--host", "gpu02")
        alone = site.run("container-create", "t", "pytorch", "--host", "gpu01")
    finally:
        site.ssh.hosts["gpu01"].start({str(site.state_dir): site.state_of(site.ssh.hosts["gpu01"])})
    assert done.exit_code == 0
    assert log.exists()
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert "gpu01: cannot be asked: ssh: connect to host" in alone.stderr


def test_a_name_that_a_host_has_is_not_created_again(site: FleetSite) -> None:
    log = add_script(site, "gpu01", CREATED)
    done = site.run("container-create", "gpu03-3._.1001", "pytorch", "--any-host")
    assert done.exit_code == 1
    assert 'container "gpu03-3._.1001" is on gpu03 already' in done.stderr
    assert not log.exists()


def test_no_host_with_room(site: FleetSite) -> None:
    done = site.run("container-create", "train", "pytorch", "--any-host", "--gpus", "9")
    assert done.exit_code == 1
    assert done.stderr == (
        "container-create: no host is known to have 9 free slots; free: gpu01 1, gpu02 2, gpu03 3\n"
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--any-host", "--host", "gpu01"), "--any-host and --host contradict"),
        (("--host", "gpu01", "--not-host", "gpu02"), "--host and --not-host contradict"),
        (("--any-host", "--wait"), "there is no queue over hosts"),
        (("--any-host", "--slot", "1.2"), "--slot needs one host"),
        (("--any-host", "--guided"), "--guided asks for a container of this host"),
        (("--host", "-oProxyCommand=touch"), "no host"),
        (("--any-host", "--image", "a\nb"), "invalid image name"),
        (("--any-host", "--workspace", "/x\ny"), "cannot mount"),
    ],
)
def test_arguments_that_contradict(site: FleetSite, words: tuple[str, ...], error: str) -> None:
    done = site.run("container-create", "train", "pytorch", *words)
    assert done.exit_code == 1
    assert error in done.stderr


def test_a_dry_run_shows_the_plan_of_the_host(site: FleetSite) -> None:
    add_script(site, "gpu01", NO_ROOM, image="true")
    done = site.run("container-create", "train", "pytorch", "--any-host", "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.startswith("dry run, nothing is changed; would create on gpu01:\n")
    assert "image present  yes" in done.stdout
    words = ("train", "pytorch", "--any-host", "--dry-run", "--json")
    document = json.loads(site.run("container-create", *words).stdout)
    assert (document["host"], document["planned"], document["created"]) == ("gpu01", True, False)
    assert document["plan"]["image_present"] is True


def test_a_booking_on_any_host(site: FleetSite) -> None:
    refused = '{"allocated": false, "refusal": "NO_GPU_AVAILABLE", "reason": "full"}'
    booked = (
        '{"allocated": true, "already": false, "container": "c", "user": "alice", "slot": "1.2",'
        ' "docker_id": "d", "slots": [{"slot": "1.2"}], "id": "r-1", "until": null}'
    )
    hosts = site.ssh.hosts
    log = hosts["gpu02"].folder / "calls"
    site.add_command(hosts["gpu01"], "ds01ctl", f"echo '{refused}'; exit 3")
    site.add_command(hosts["gpu02"], "ds01ctl", f"echo \"$*\" > {log}; echo '{booked}'")
    words = ("allocate", "alice", "--any-host", "--reason", "it's $HOME")
    done = site.run("ds01ctl", *words)
    assert (done.exit_code, done.stdout) == (0, "c holds 1.2 of gpu02 as alice\n")
    assert log.read_text() == "allocate --json --count 1 --reason=it's $HOME -- alice\n"
    document = json.loads(site.run("ds01ctl", *words, "--json").stdout)
    assert (document["host"], document["slot"], document["id"]) == ("gpu02", "1.2", "r-1")
    done = site.run("ds01ctl", "allocate", "alice", "--host", "gpu01")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "gpu01: full" in done.stderr
    done = site.run("ds01ctl", "allocate", "alice", "--host", "gpu01", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["refusal"]) == (3, "NO_GPU_AVAILABLE")


def test_the_page_shows_what_another_process_asks_for_it(site: FleetSite) -> None:
    """`fleet publish` has ssh; the page has a file, and says so when that gets old."""
    view_file = site.folder / "hosts.json"
    port = find_free_port()
    site.configure(NAMES, view_file=str(view_file))
    site.write_status(site.ssh.hosts["gpu03"], b"garbage")
    # The page may not run ssh at all.
    without_ssh = {**site.environ, "PATH": "/nowhere"}

    def read_page() -> dict[str, Any]:
        document: dict[str, Any] = json.loads(request(port, "/page.json").body)["fleet"]
        check_document({**document})
        return document

    with serving(site.config, without_ssh, f"127.0.0.1:{port}"):
        before = read_page()
        assert before["total"] == {"hosts": 3, "unknown": 3, "slots": 0, "free": 0}
        assert "hosts.json does not exist (is ds01d-hosts.service running?)" in str(before)
        done = site.run("ds01ctl", "fleet", "publish", "--once")
        assert (done.exit_code, done.stdout) == (0, "")
        assert done.stderr.startswith("gpu03 is unknown: its status is not one of ds01d")
        until(lambda: read_page()["total"]["unknown"] == 1)
        shown = read_page()
        assert shown["total"] == {"hosts": 3, "unknown": 1, "slots": 5, "free": 3}
        printed = json.loads(site.run("ds01ctl", "fleet", "status", "--json").stdout)
        ages = ("at", "age_s", "last_answer", "published_at", "unknown_since")
        assert leave_out(shown["hosts"], ages) == leave_out(printed["hosts"], ages)
        view = read_view(view_file)
        write_view(view_file, replace(view, viewed_at=Wall(view.viewed_at - 100)))
        until(lambda: read_page()["total"]["unknown"] == 3)
        old = read_page()["hosts"]
        assert re.match(r"not asked for [1-9]\d* m", old[0]["reason"])
        assert (old[0]["slots"], len(old[0]["last_slots"])) == (None, 2)
        assert "its status is not one of ds01d" in old[2]["reason"]


def leave_out(hosts: list[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    return [{key: value for key, value in host.items() if key not in keys} for host in hosts]


def test_what_publishes_says_what_changes_and_ends_when_it_is_told_to(site: FleetSite) -> None:
    view_file = site.folder / "hosts.json"
    site.configure(NAMES, view_file=str(view_file))
    process = site.start("ds01ctl", "fleet", "publish", "--every", "5s")
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == f"publishing {view_file}\n"
        until(view_file.exists)
        site.ssh.hosts["gpu02"].freeze()
        # The connection that is kept open would still answer.
        site.ssh.hosts["gpu02"].cut_connections()
        # Whichever is first, ssh or who waits for it.
        problem = r"gpu02 is unknown: (no answer within 5 s|ssh: .* timed out .*)\n"
        assert re.fullmatch(problem, process.stderr.readline())
        assert [host.state.value for host in read_view(view_file).hosts] == ["ok", "unknown", "ok"]
        site.ssh.hosts["gpu02"].thaw()
        assert process.stderr.readline() == "gpu02 is known again\n"
    finally:
        site.ssh.hosts["gpu02"].thaw()
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    done = site.run("ds01ctl", "fleet", "publish", "--every", "1s")
    assert done.exit_code == 1
    assert "expected 5s to 5m" in done.stderr


def test_a_view_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    publisher = FleetPublisher(look=list, path=tmp_path / "file" / "x", every_s=30.0)
    assert not publisher.publish()
    assert "was not written" in publisher.summary


def test_a_reason_of_many_megabytes_does_not_flood_the_log(
    site: FleetSite,
) -> None:
    """Each of its changes is logged, and the host that says it decides when it changes."""
    view_file = site.folder / "hosts.json"
    site.configure(["gpu01"], view_file=str(view_file))
    host = site.ssh.hosts["gpu01"]
    path = FleetSite.state_of(host) / "status.json"
    site.publish(host, free=1)
    status = json.loads(path.read_bytes())
    endless = {"failing_since": 1.0, "reason": "\u200b" * 1_000_000}
    sources = {"docker": {"ok": False, "reason": "\x1b" * 1_000_000}}
    for changes in ({"passes": endless}, {"sources": sources, "version": "9" * 1_000_000}):
        site.write_status(host, json.dumps(status | changes).encode())
        done = site.run("ds01ctl", "fleet", "publish", "--once")
        assert done.exit_code == 0
        assert "gpu01 is unknown: " in done.stderr
        assert len(done.stderr) < 3000
        assert view_file.stat().st_size < 5000
    site.publish(host, free=1)


def test_many_hosts_with_all_that_is_read_fit_into_the_memory_of_the_unit(
    started: FleetSite, site: FleetSite
) -> None:
    """All at once, each with a status that takes the most memory for its text."""
    host = started.ssh.add("gpu08")
    FleetSite.state_of(host).mkdir()
    host.start({str(started.state_dir): FleetSite.state_of(host)})
    names = [f"large{number}" for number in range(MOST_CONNECTIONS)]
    view_file = site.folder / "hosts.json"
    view_file.unlink(missing_ok=True)
    # Asked first, and not when six large answers have taken their time.
    site.configure(["gpu01", *names], view_file=str(view_file))
    site.publish(host, free=0)
    path = FleetSite.state_of(host) / "status.json"
    status = {**json.loads(path.read_bytes()), "slots": "SLOTS"}
    slots = b'[{"id":"0","type":"mig","foreign":[' + b'"a\xc3\xbc",' * 1_390_000 + b'""]}]'
    data = json.dumps(status).encode().replace(b'"SLOTS"', slots)
    assert 0.99 * MAX_STATUS_BYTES < len(data) < MAX_STATUS_BYTES
    path.write_bytes(data)
    try:
        started.ssh.write_client(
            "\n".join(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {host.port}\n  HostKeyAlias gpu08"
                for name in names
            )
        )
        process = site.start("ds01ctl", "fleet", "publish", "--every", "5m")
        try:
            until(view_file.exists, 60)
            peak = read_peak(process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=60)
    finally:
        host.stop()
        del started.ssh.hosts["gpu08"]
        started.ssh.write_client()
    shown = {str(one.name): one for one in read_view(view_file).hosts}
    assert [shown[name].state.value for name in names] == ["unknown"] * len(names)
    assert shown["gpu01"].state.value == "ok"
    unit = (ROOT / "systemd" / "ds01d-hosts.service").read_text("utf-8")
    (most,) = re.findall(r"^MemoryMax=(\d+)M$", unit, re.MULTILINE)
    assert peak < 0.8 * (int(most) << 20)


def read_peak(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    # Not by getrusage, which has the peak of whoever started it as well.
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    (size,) = re.findall(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    return int(size) << 10


def test_a_key_that_may_only_ask_for_the_status(started: FleetSite, site: FleetSite) -> None:
    """The forced command gives the same answer, whatever else the key is used for."""
    script = ROOT / "share" / "fleet-status.sh"
    plain = site.run("ds01ctl", "fleet", "status", "--json")
    host = started.ssh.add("gpu09")
    FleetSite.state_of(host).mkdir()
    folder = {str(started.state_dir): FleetSite.state_of(host)}
    host.start(folder, [f"ForceCommand {shlex.join([str(script), str(started.state_dir)])}"])
    try:
        started.ssh.write_client()
        started.publish(host, free=1, held=1)
        site.configure(["gpu09"])
        shown = json.loads(site.run("ds01ctl", "fleet", "status", "--json").stdout)
        assert shown["total"] == {"hosts": 1, "unknown": 0, "slots": 2, "free": 1}
        one = json.loads(plain.stdout)["hosts"][0]
        assert {*shown["hosts"][0]} == {*one}
        for words in ("id", "cat /etc/shadow", "$(id)", "x" * 40, ""):
            done = subprocess.run(
                ["ssh", "gpu09", *([words] if words else [])],
                env=site.environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                text=True,
                timeout=60,
            )
            assert (done.returncode, done.stdout) == (1, "")
            assert "may only be used by ds01ctl fleet" in done.stderr
        created = site.run("container-create", "train", "pytorch", "--host", "gpu09")
        assert created.exit_code == 1
    finally:
        host.stop()
        del started.ssh.hosts["gpu09"]
        started.ssh.write_client()


def test_without_hosts_nothing_is_imported_opened_or_sent(tmp_path: Path) -> None:
    config = tmp_path / "ds01d.toml"
    config.write_text("")
    code = """
import os, sys
def refuse(event, arguments):
    if event in {"subprocess.Popen", "os.exec", "os.posix_spawn"}:
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(refuse)
import ds01d.cli.daemon, ds01d.bootstrap_daemon, ds01d.cli.ctl.status, ds01d.cli.containers.main
import ds01d.cli.ctl.allocate, ds01d.cli.ctl.web, ds01d.cli.ctl.web_sources
import ds01d.cli.dashboard.main
for name in sys.modules:
    assert "adapters.fleet" not in name and name != "ds01d.cli.base.fleet", name
from ds01d.cli.ctl.main import main
main(["fleet", "status"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            "DS01D_CONFIG": str(config),
            "PATH": "/nowhere",
            "XDG_CACHE_HOME": str(tmp_path / "c"),
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("no other hosts are configured: list them in fleet.hosts\n")
    assert [path.name for path in tmp_path.iterdir()] == ["ds01d.toml"]
    assert Config().fleet.hosts == ()


def test_tab_offers_the_hosts_of_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "ds01d.toml"
    config.write_text('[fleet]\nhosts = ["gpu01", "gpu02", "other"]\n')
    environment = Invocation(environment=host_environment(), config_file=config)
    context = click.Context(click.Command("x"), obj=environment)
    (option,) = [given for given in create.params if given.name == "hosts"]
    words = [item.value for item in option.shell_complete(context, "gpu")]
    assert words == ["gpu01", "gpu02"]


def test_hosts_are_checked_with_the_configuration() -> None:
    text = '[fleet]\nhosts = ["gpu01", "-x", "gpu01"]\nhosts_file = "x"\n'
    with pytest.raises(ConfigError) as caught:
        parse_config(text, origin="f")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert '"-x" is not a valid host name' in lines[0]
    assert "a host is listed twice" in lines[1]
    assert lines[2].startswith("f, line 3: fleet.hosts_file: invalid path")
