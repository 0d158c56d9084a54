"""`doctor` checks one thing a line, names the fix, and writes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ds01d import __version__
from ds01d.adapters.docker.engine_warnings import warn_no_lasting_id, warn_stream_cut
from ds01d.adapters.notices.delivery_file import DeliveryFile
from ds01d.cli.doctor import host_checks, path_checks, writer_checks
from ds01d.cli.doctor.known_programs import ALLOCATORS
from ds01d.cli.doctor.source_checks import Check, Health
from ds01d.config import BooksConfig, Config, LogsConfig, NotifyConfig
from ds01d.errors import ConfigError, EngineFailed
from ds01d.model.books import MISSING, BadRecord, Unreadable
from ds01d.model.limits import HoldRule
from ds01d.model.notice import DeliveryRecord
from ds01d.model.primitives import ContainerName, Digest, Source, UserName, Wall
from ds01d.reporting.status import PassHealth
from ds01d.reporting.status_file import write_status
from tests.support.commands import Desk
from tests.support.status import published
from tests.support.world import IDENTITY, WALL

ROOT = Path(__file__).parents[3]


@pytest.fixture
def desk(desk: Desk, tmp_path: Path) -> Desk:
    """One whose configuration names folders that are there."""
    lib, log = tmp_path / "lib", tmp_path / "log"
    (lib / "metadata").mkdir(parents=True)
    log.mkdir()
    (lib / "state.json").write_text("{}")
    books = BooksConfig(state=lib / "state.json", metadata=lib / "metadata")
    logs = LogsConfig(operations=log / "operations.log", allocations=log / "allocations.log")
    desk.config = msgspec.structs.replace(desk.config, books=books, logs=logs)
    return desk


def checks(desk: Desk) -> Mapping[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for check in desk.json("doctor")["checks"]:
        found.setdefault(check["name"], []).append(check)
    return found


def test_a_host_that_is_well(desk: Desk) -> None:
    result = desk.call("doctor")
    assert result.exit_code == 0
    told = checks(desk)
    assert all(check["health"] != "fail" for some in told.values() for check in some)
    assert told["docker"][0]["told"].startswith("version 20.10.24; 2 containers listed in 0.0")
    assert told["nvml"][0]["told"].startswith("driver unknown, 1 GPU, 4 MIG devices")
    assert told["state"][0]["told"] == "4 slots, 3 bookings"
    assert told["engine"][0]["told"].endswith("the first pass will trust it")
    assert desk.json("doctor")["ok"] is True


def test_every_warning_and_failure_names_its_mend(desk: Desk) -> None:
    desk.host.failing |= set(Source)
    for check in desk.json("doctor")["checks"]:
        assert bool(check["fix"]) == (check["health"] != "ok"), check


def test_nothing_is_written(desk: Desk) -> None:
    before = {path: path.stat().st_mtime_ns for path in desk.state_dir.rglob("*")}
    desk.call("doctor")
    assert {path: path.stat().st_mtime_ns for path in desk.state_dir.rglob("*")} == before
    assert desk.host.memory is None


@pytest.mark.parametrize(
    ("source", "health"),
    [
        (Source.DOCKER, "fail"),
        (Source.NVML, "fail"),
        (Source.STATE, "fail"),
        (Source.METADATA, "fail"),
        (Source.LIMITS, "warn"),
        (Source.OPERATIONS, "warn"),
    ],
)
def test_a_source_that_does_not_answer(desk: Desk, source: Source, health: str) -> None:
    desk.host.failing.add(source)
    name = "operations log" if source is Source.OPERATIONS else source.value
    check = checks(desk)[name][0]
    assert check["health"] == health
    assert f"{source} does not answer" in check["told"]
    assert desk.call("doctor").exit_code == (1 if health == "fail" else 0)


def test_a_configuration_that_is_refused_is_all_there_is_to_say(desk: Desk) -> None:
    def refused(_: object) -> Config:
        raise ConfigError("a.toml, line 1: x: wrong\na.toml, line 2: y: wrong")

    desk.load_config = refused
    result = desk.call("doctor")
    assert result.stdout.count("fail    configuration") == 2
    assert result.exit_code == 1


def test_records_and_rules_that_make_no_sense_are_named(desk: Desk) -> None:
    for number in range(7):
        name = ContainerName(f"bad{number}")
        desk.host.records[name] = BadRecord(
            container=name, reason="no JSON", digest=Digest("b"), replaceable=True
        )
    rule = HoldRule(seconds=None, source="groups.x", problem="groups.x: bare 0 is ambiguous")
    desk.host.limits = replace(desk.host.limits, holds={UserName("eve"): rule})
    told = checks(desk)
    assert told["metadata"][0]["told"] == "3 records valid"
    assert [check["health"] for check in told["metadata"][1:]] == ["warn"] * 6
    assert told["metadata"][-1]["told"] == "and 2 more like these"
    assert "eve: groups.x: bare 0 is ambiguous" in told["limits"][1]["told"]


def test_an_unreadable_state_another_engine_a_sick_gpu(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.identity = replace(IDENTITY, id="OTHER")
    assert desk.host.gpu is not None
    sick = replace(desk.host.gpu.gpus[0], health=("GPU is lost",))
    desk.host.gpu = replace(desk.host.gpu, gpus=(sick,))
    desk.host.state = Unreadable(reason="no JSON", digest=Digest("x"))
    told = checks(desk)
    assert told["engine"][0]["fix"].endswith("ds01ctl thaw --engine")
    assert "GPU is lost" in told["gpu 1"][0]["told"]
    assert told["state"][0]["health"] == "fail"


def test_docker_as_the_books_begins_without_a_file(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.state = Unreadable(reason="does not exist", digest=MISSING)
    assert checks(desk)["state"][0]["health"] == "fail"
    books = msgspec.structs.replace(desk.config.books, kind="docker")
    desk.config = msgspec.structs.replace(desk.config, books=books)
    assert checks(desk)["state"][0]["told"] == "nothing is reserved yet"


def test_no_gpu_at_all_is_no_inventory(desk: Desk) -> None:
    assert desk.host.gpu is not None
    desk.host.gpu = replace(desk.host.gpu, gpus=(), migs=())
    assert checks(desk)["nvml"][0]["health"] == "fail"


def test_a_docker_that_does_not_tell_its_version_is_well(desk: Desk) -> None:
    def silent(_: object) -> str:
        raise EngineFailed("no answer")

    desk.engine_version = silent
    assert checks(desk)["docker"][0]["told"].startswith("version unknown (no answer); 2")


def test_folders_that_are_missing_or_links(desk: Desk, tmp_path: Path) -> None:
    books = msgspec.structs.replace(desk.config.books, metadata=tmp_path / "none")
    (tmp_path / "link.json").symlink_to(desk.config.books.state)
    books = msgspec.structs.replace(books, state=tmp_path / "link.json")
    desk.config = msgspec.structs.replace(desk.config, books=books)
    told = checks(desk)
    assert told["folder of metadata"][0]["health"] == "fail"
    assert "symbolic link" in told["state file"][0]["told"]


def test_a_state_dir_yet_to_be_made_is_fine(desk: Desk, tmp_path: Path) -> None:
    daemon = msgspec.structs.replace(desk.config.daemon, state_dir=tmp_path / "a" / "b")
    desk.config = msgspec.structs.replace(desk.config, daemon=daemon)
    assert checks(desk)["ds01d's folder"][0]["told"].endswith("will be created by the first pass")


def test_a_lock_that_stays_taken_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "_LOCK_PATIENCE_S", 0.0)
    with (desk.state_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = [check["told"] for check in checks(desk)["lock"]]
    assert told[1].startswith(f"{desk.state_dir}/lock has been locked for more than")
    assert checks(desk)["lock"][1]["told"] == f"{desk.state_dir}/lock is free"


def test_a_directory_in_the_place_of_a_lock_is_not_free(desk: Desk) -> None:
    (desk.state_dir / "lock").mkdir()
    check = checks(desk)["lock"][1]
    assert (check["health"], "not a regular file" in check["told"]) == ("fail", True)


def test_passes_that_fail_are_a_failure_of_the_daemon(desk: Desk) -> None:
    failing = PassHealth(failing_since=Wall(2_000.0), failures=1, reason="no lock to be had")
    write_status(published(passes=failing), desk.state_dir)
    (check,) = checks(desk)["daemon"]
    assert (check["health"], "no lock to be had" in check["told"]) == ("fail", True)


def test_hidden_processes_are_a_failure(tmp_path: Path) -> None:
    assert host_checks.check_hidepid(Path("/proc")).health is Health.OK
    assert host_checks.check_hidepid(tmp_path).health is Health.FAIL


def test_cron_lines_of_other_writers_are_named(tmp_path: Path) -> None:
    (tmp_path / "ds01").write_text(
        "# 0 * * * * root cleanup-stale-gpu-allocations.sh\n"
        "*/5 * * * * root /opt/ds01-infra/scripts/cleanup-stale-gpu-allocations.sh\n"
        "*/5 * * * * root reconcile-gpu-state --fix --state gpu-state.json\n"
        "17 * * * * root run-parts /etc/cron.hourly\n"
    )
    (found,) = writer_checks.check_cron((tmp_path, tmp_path / "none"))
    assert found.detail.startswith(f"{tmp_path}/ds01:2 runs another writer: ")
    assert [c.health for c in writer_checks.check_cron((tmp_path / "none",))] == [Health.OK]


CONTAINERS_ONLY = """\
50 * * * * root /opt/ds01-infra/scripts/maintenance/cleanup-stale-containers.sh
20 * * * * root /opt/ds01-infra/scripts/monitoring/check-idle-containers.sh >/dev/null 2>&1
35 * * * * root /opt/ds01-infra/scripts/maintenance/enforce-max-runtime.sh
0 3 * * * root docker system prune --force
"""


def test_cron_lines_that_remove_containers_are_no_writers_of_the_books(tmp_path: Path) -> None:
    (tmp_path / "ds01").write_text(CONTAINERS_ONLY)
    consistent, *others = writer_checks.check_cron((tmp_path,))
    assert consistent.detail == "no line runs another writer of the books"
    assert [one.health for one in others] == [Health.OK] * 4
    assert [one.detail for one in others] == [
        f"{tmp_path}/ds01:{number} removes or stops containers, but does not touch the books"
        for number in range(1, 5)
    ]


@pytest.mark.parametrize("name", ["cleanup-stale-containers.sh", "reconcile-gpu-state.sh"])
def test_a_script_is_judged_by_what_it_writes(tmp_path: Path, name: str) -> None:
    script = tmp_path / name
    table = tmp_path / "cron"
    table.write_text(f"5 * * * * root bash {script}\n")
    script.write_text("docker rm $(docker ps --all --quiet)\n")
    assert writer_checks_of(table) == [Health.OK]
    script.write_text("jq . /var/lib/ds01/gpu-state.json > /tmp/x && mv /tmp/x gpu-state.json\n")
    assert writer_checks_of(table) == [Health.WARN]
    script.unlink()
    script.symlink_to(ROOT / "share" / "reconcile-gpu-state.sh")
    assert writer_checks_of(table) == [Health.OK]


def writer_checks_of(table: Path) -> list[Health]:
    return [one.health for one in writer_checks.check_cron((table,))][:1]


PRESENT_LAB = """\
5 * * * * root /opt/ds01-infra/scripts/maintenance/cleanup-stale-gpu-allocations.sh
10 * * * * root /opt/ds01-infra/scripts/monitoring/resource-alert-checker.sh
20 * * * * root /opt/ds01-infra/scripts/monitoring/check-idle-containers.sh
35 * * * * root /opt/ds01-infra/scripts/maintenance/enforce-max-runtime.sh
50 * * * * root /opt/ds01-infra/scripts/maintenance/cleanup-stale-containers.sh
* * * * * root /opt/ds01-infra/scripts/monitoring/collect-resource-stats.sh
*/5 * * * * root python3 /opt/ds01-infra/scripts/monitoring/gpu-utilization-monitor.py --record
*/30 * * * * root python3 /opt/ds01-infra/scripts/docker/gpu-queue.py process
*/15 * * * * root /opt/ds01-infra/scripts/system/permissions-manifest.sh
0 2 * * * root python3 /opt/ds01-infra/scripts/monitoring/validate-state.py --fix
0 6 1 * * root python3 /opt/ds01-infra/scripts/docker/gpu-state-reader.py json
30 4 * * * root /opt/ds01-infra/scripts/elsewhere/of-nobody.sh
"""


def test_the_jobs_of_the_present_lab_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "ds01-maintenance"
    file.write_text(PRESENT_LAB)
    found = list(writer_checks.check_cron((tmp_path,)))
    assert [one.health for one in found if one.detail.startswith(f"{file}:1 ")] == [Health.WARN]
    assert "may kill every process on the first GPU and reset it" in found[0].detail
    warned = {one.detail.split()[0]: one.detail for one in found if one.health is Health.WARN}
    assert warned.keys() == {f"{file}:{number}" for number in (1, 8, 10)}
    assert "is not needed beside ds01d: its notifications never arrive" in warned[f"{file}:8"]
    assert "with --fix it fails at each run" in warned[f"{file}:10"]
    policy = [one.detail for one in found if "removes or stops containers" in one.detail]
    assert [text.split()[0] for text in policy] == [f"{file}:{number}" for number in (3, 4, 5)]
    assert found[-1].detail == "4 lines of the lab only read"
    (takes,) = (one for one in found if one.detail.startswith(f"{file}:9 "))
    assert "gives /var/lib/ds01 and /var/log/ds01 to a group" in takes.detail


def test_a_script_that_resets_gpus_is_no_reader(tmp_path: Path) -> None:
    script, table = tmp_path / "collect-resource-stats.sh", tmp_path / "cron"
    table.write_text(f"* * * * * root {script}\n")
    script.write_text("nvidia-smi --query-gpu=uuid --format=csv\n")
    assert writer_checks_of(table) == [Health.OK]
    script.write_text('nvidia-smi -i "$gpu" -r\n')
    (check,) = writer_checks.check_cron((table,))
    assert "its script resets GPUs that are in use" in check.detail


def test_programs_that_hide_ours_are_named_with_what_they_are(tmp_path: Path) -> None:
    """The lab puts links of the same names into /usr/local/bin, which comes first on PATH."""
    local, own, lab = tmp_path / "local", tmp_path / "venv", tmp_path / "lab"
    for folder in (local, own, lab):
        folder.mkdir()
    names = ("container-create", "container-list", "ds01-dashboard", "ds01ctl", "ds01d")
    for name in names:
        (own / name).write_text("#!python\n")
    (lab / "create.sh").write_text("#!/bin/bash\nmlc-create\n")
    (local / "container-create").symlink_to(lab / "create.sh")
    (local / "container-list").symlink_to(own / "container-list")
    (local / "ds01-dashboard").symlink_to(lab / "gone")
    (local / "ds01ctl").write_text('exec /usr/bin/ds01ctl --config /srv/ds01d.toml "$@"\n')
    found = list(
        writer_checks.check_hidden_commands((local,), {name: own / name for name in names})
    )
    assert [one.health for one in found] == [Health.WARN] * 2
    create, dashboard = (one.detail.split(" shadows ") for one in found)
    assert create == [f"{local}/container-create -> {lab}/create.sh", "container-create of ds01d"]
    assert dashboard == [f"{local}/ds01-dashboard -> {lab}/gone", "ds01-dashboard of ds01d"]
    assert all("docs/migrating.md" in one.fix for one in found)
    (clear,) = writer_checks.check_hidden_commands((lab,), {name: own / name for name in names})
    assert clear.health is Health.OK


def test_ours_are_the_commands_of_this_installation() -> None:
    commands = writer_checks.installed_commands()
    assert {"ds01ctl", "ds01-allocator", "container-create"} <= commands.keys()
    assert all(path.exists() for path in commands.values())


def test_a_clock_behind_the_books_is_told(desk: Desk) -> None:
    assert host_checks.check_clock(desk.config, Wall(0.0)).health is Health.WARN
    assert host_checks.check_clock(desk.config, Wall(WALL * 2)).health is Health.OK


def test_the_daemon_is_well_silent_or_degraded(desk: Desk) -> None:
    def daemon() -> Check:
        return host_checks.check_daemon(desk.config, Wall(time.time()))

    assert daemon().health is Health.WARN
    write_status(published(), desk.state_dir)
    assert daemon().detail == f"running version 1.2.3, but {__version__} is installed"
    assert daemon().fix == "systemctl restart ds01d.service"
    write_status(published(version=__version__), desk.state_dir)
    assert daemon().detail == f"running, mode repair, version {__version__}"
    write_status(published(degraded=("disk full",)), desk.state_dir)
    assert daemon().detail == "degraded: disk full"


def test_what_docker_answers_badly_is_named_with_its_fix(desk: Desk) -> None:
    """What only the daemon can know of the stream of events, it has published."""
    no_id, cut = warn_no_lasting_id("/srv/podman"), warn_stream_cut(60.0, bridged=False)
    desk.host.warnings = (no_id,)
    desk.host.identity = replace(IDENTITY, id="", driver="overlay")
    write_status(published(warnings=(no_id, cut)), desk.state_dir)
    told = checks(desk)
    assert "without a lasting ID at /var/lib/docker (overlay)" in told["engine"][0]["told"]
    (stream,) = told["event stream"]
    assert (stream["health"], stream["told"], stream["fix"]) == ("warn", cut.text, cut.fix)
    assert "every 60 s" in stream["told"]
    assert "waiting times start again each time" in stream["told"]
    assert told["engine"][1]["told"] == no_id.text


def test_whoever_has_no_rights_is_told_so(desk: Desk) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    checks(desk)  # imports what it needs: of a clone with umask 077 nobody else may read a module
    os.seteuid(65534)
    try:
        told = checks(desk)
    finally:
        os.seteuid(0)
    for name in ("folder of the state", "folder of metadata", "ds01d's folder"):
        assert told[name][0]["health"] == "fail"
    assert told["allocations log"][0]["health"] == "warn"


def test_where_events_and_notices_go_is_checked(desk: Desk, tmp_path: Path) -> None:
    assert not {"events", "notices"} & checks(desk).keys()
    logs = msgspec.structs.replace(desk.config.logs, events=str(tmp_path / "no" / "events.jsonl"))
    notify = NotifyConfig(alerts=str(tmp_path / "no" / "alerts"))
    desk.config = msgspec.structs.replace(desk.config, logs=logs, notify=notify)
    told = checks(desk)
    assert [told[name][0]["health"] for name in ("events", "notices")] == ["warn", "warn"]
    (tmp_path / "no" / "alerts").mkdir(parents=True)
    told = checks(desk)
    assert [told[name][0]["health"] for name in ("events", "notices")] == ["ok", "ok"]


def test_what_became_of_notices_is_checked(desk: Desk, tmp_path: Path) -> None:
    records = tmp_path / "deliveries"
    records.mkdir()
    notify = NotifyConfig(
        terminals=True, command="/no/such", webhook="/etc/ds01/webhook", state_dir=tmp_path
    )
    desk.config = msgspec.structs.replace(desk.config, notify=notify)
    failing = DeliveryRecord(sent=3, failed=1, failure="webhook: HTTP 500", is_failing=True)
    DeliveryFile(records / "webhook.json").save(failing)
    DeliveryFile(records / "terminals.json").save(DeliveryRecord(sent=1))
    (records / "command.json").write_text("{")
    told = [(one["health"], one["told"]) for one in checks(desk)["notices"]]
    assert ("warn", "notify.command: /no/such is missing, or not executable") in told
    assert ("ok", "terminals: 1 notice sent, 0 failed") in told
    assert ("warn", "webhook: 3 notices sent, 1 failed; last: webhook: HTTP 500") in told
    assert any(text.startswith(f"command: {records}/command.json: is damaged") for _, text in told)


def test_a_full_file_system_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_checks, "_ENOUGH_BYTES", 2**80)
    assert checks(desk)["ds01d's folder"][0]["fix"].startswith("free disk space")


def test_a_folder_that_everybody_may_change_is_told(desk: Desk) -> None:
    folder = desk.config.books.metadata
    folder.chmod(0o2775)
    assert checks(desk)["folder of metadata"][0]["told"].startswith(f"{folder}, drwxrwsr-x ")
    folder.chmod(0o777)
    (check,) = checks(desk)["folder of metadata"]
    assert (check["health"], check["fix"]) == ("warn", f"chmod o-w {folder}")


def check_allocator(number: int, path: Path) -> Check:
    """What the doctor says of this file in place of the lab's allocator."""
    (check,) = writer_checks.check_allocators((replace(ALLOCATORS[number], path=path),))
    return check


def test_an_old_allocator_without_the_lock_is_told(tmp_path: Path) -> None:
    path = tmp_path / "gpu_allocator.py"
    assert check_allocator(0, path).health is Health.OK
    path.write_text("json.dump(state, open('gpu-state.json', 'w'))")
    check = check_allocator(0, path)
    assert (check.health, str(path) in check.detail) == (Health.WARN, True)
    path.unlink()
    path.symlink_to(ROOT / "share" / "gpu_allocator.py")
    assert check_allocator(0, path).health is Health.OK


def test_an_allocator_that_a_release_put_back_is_told(tmp_path: Path) -> None:
    path, ours = tmp_path / "gpu_allocator_v2.py", "/usr/share/ds01d/gpu_allocator_v2.py"
    path.write_text("fcntl.flock(open('/var/log/ds01/gpu-allocator.lock', 'w'), fcntl.LOCK_EX)\n")
    check = check_allocator(1, path)
    assert check.detail == f"{path} {ALLOCATORS[1].problem}"
    assert check.fix == f"put {ours} in its place: docs/migrating.md"
    # As docs/migrating.md replaces it; then a release copies its own tree over the link.
    path.rename(tmp_path / "gpu_allocator_v2.py.before-ds01d")
    path.write_text('"""The allocator, by ds01d."""\n')
    assert check_allocator(1, path).health is Health.OK
    path.write_text("print(slot)\n")
    check = check_allocator(1, path)
    assert check.detail.startswith(f"{path} was replaced, as by a release of the lab: ")
    assert check.fix == f"ln -sf {ours} {path}"


def test_sharing_where_the_lab_never_shared_is_told(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "gpu_allocator_v2.py"
    assert list(writer_checks.check_sharing(desk.config, path)) == []
    path.touch()
    (check,) = writer_checks.check_sharing(desk.config, path)
    assert (check.health, check.fix) == (Health.WARN, 'set allocator.sharing = "never"')
    allocator = msgspec.structs.replace(desk.config.allocator, sharing="never")
    config = msgspec.structs.replace(desk.config, allocator=allocator)
    assert list(writer_checks.check_sharing(config, path)) == []


def test_a_wrapper_that_is_not_on_path_any_more_is_told(tmp_path: Path) -> None:
    wrapper, command = tmp_path / "docker-wrapper.sh", tmp_path / "docker"
    assert list(writer_checks.check_wrapper(wrapper, command)) == []
    wrapper.write_text("exec /usr/bin/docker\n")
    (check,) = writer_checks.check_wrapper(wrapper, command)
    assert "is missing" in check.detail
    assert check.fix == f"ln -sf {wrapper} {command}"
    command.write_text("exec /usr/bin/docker\n")
    assert [one.health for one in writer_checks.check_wrapper(wrapper, command)] == [Health.OK]
    command.unlink()
    command.symlink_to("/usr/bin/docker")
    (check,) = writer_checks.check_wrapper(wrapper, command)
    assert f"{command} -> /usr/bin/docker" in check.detail
    command.unlink()
    command.symlink_to(wrapper)
    assert [one.health for one in writer_checks.check_wrapper(wrapper, command)] == [Health.OK]


def test_where_the_configuration_is_from_is_told(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "ds01d.toml"
    told = json.loads(desk.call("doctor", "--config", str(file), "--json").stdout)["checks"][0]
    assert told["told"].startswith(f"the defaults ({file} does not exist)")
    file.touch()
    told = json.loads(desk.call("doctor", "--config", str(file), "--json").stdout)["checks"][0]
    assert told["told"] == f"{file}: valid; mode repair"
