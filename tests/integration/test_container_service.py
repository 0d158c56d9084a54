"""Containers through the service, on a real engine: confined, booked, undone."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ds01d.adapters.docker.commands import DockerCommands
from ds01d.containers.labels import CREATION
from ds01d.model.creation import Plan
from ds01d.model.primitives import ContainerId, ContainerName, SlotId, UserName
from simulation.engine import IMAGE, PrivateEngine
from simulation.proxy import Proxy
from tests.support.books import until
from tests.support.container_calls import ContainerDesk, make_users
from tests.support.containers import PATIENT
from tests.support.daemon import Site

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes the homes of other users"),
]

CATALOGUE = f"""\
[container]
command = ["sleep", "600"]
mounts = ["{{home}}/work:/workspace"]
network = "none"

[[image]]
framework = "pytorch"
version = "2.5.0"
image = "{IMAGE}"

[[image]]
framework = "missing"
image = "localhost:1/not/there:1"
"""
LIMITS = """\
defaults:
  {gpu_hold_after_stop: null, priority: 1, max_mig_instances: 2, max_cpus: 2, memory: 256m,
   memory_swap: 256m, shm_size: 32m, pids_limit: 100, max_containers_per_user: 3}
"""
NAME = "train._.4001"


@contextmanager
def open_desk(folder: Path, url: str) -> Iterator[ContainerDesk]:
    catalogue = folder / "frameworks.toml"
    catalogue.write_text(CATALOGUE, encoding="utf-8")
    containers = {"frameworks": str(catalogue)}
    site = Site(folder, url, containers=containers, service={"containers": True})
    site.configure(**PATIENT)
    site.limits.write_text(LIMITS, encoding="utf-8")
    # Not below /tmp, where everybody may put something in the place of a folder.
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="ds01-homes-") as homes:
        Path(homes).chmod(0o755)
        desk = ContainerDesk(site, make_users(Path(homes)))
        yield desk
        desk.close()


@pytest.fixture
def desk(tmp_path: Path, engine: PrivateEngine) -> Iterator[ContainerDesk]:
    with open_desk(tmp_path, engine.url) as desk:
        yield desk


def error_of(reply: dict[str, Any]) -> tuple[str, str]:
    """Its short name, and what it says."""
    assert "error" in reply, reply
    (text,) = reply["parameters"].values()
    return reply["error"].rpartition(".")[2], text


def test_a_container_from_its_creation_to_its_removal(
    desk: ContainerDesk, engine: PrivateEngine
) -> None:
    reply = desk.call("amy", "Create", name="train", framework="pytorch")
    assert "error" not in reply, reply
    created = reply["parameters"]["created"]
    assert (created["name"], created["slots"], created["is_started"]) == (NAME, ["1.0"], True)
    seen = engine.client.inspect_container(NAME)
    host, config, amy = seen["HostConfig"], seen["Config"], desk.users["amy"]
    assert config["User"] == "4001:4001"
    assert config["WorkingDir"] == f"{amy.home}/work"
    assert host["GroupAdd"] == ["4100"]
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    limits = {
        "MemoryLimit": ((host["Memory"], host["MemorySwap"]), (256 << 20, 256 << 20)),
        "CpuCfsQuota": ((host["CpuQuota"], host["CpuPeriod"]), (200_000, 100_000)),
        "PidsLimit": (host["PidsLimit"], 100),
    }
    can = engine.client.info()
    assert all(given == wanted for key, (given, wanted) in limits.items() if can[key])
    # A dockerd in a control group without a controller discards what needs it.
    warnings = "".join(reply["parameters"]["warnings"])
    assert warnings.count("Docker warns: ") >= sum(not can[key] for key in limits)
    assert host["ShmSize"] == 32 << 20
    assert [(m["Source"], m["Destination"]) for m in seen["Mounts"]] == [(amy.home, amy.home)]
    rows = desk.call("amy", "List")["parameters"]["containers"]
    assert [(row["name"], row["user"], row["slots"]) for row in rows] == [(NAME, "amy", ["1.0"])]
    assert desk.call("ben", "List", all=True)["parameters"]["containers"] == []
    stopped = desk.call("amy", "Stop", name="train", kill_after_s=0)["parameters"]
    assert (stopped["ran"], stopped["slots"]) == (True, ["1.0"])
    assert desk.call("amy", "Start", name="train")["parameters"]["slots"] == []
    assert engine.client.inspect_container(NAME)["State"]["Running"]
    refused = desk.call("amy", "Remove", name="train")
    assert error_of(refused)[0] == "Refused"
    removed = desk.call("amy", "Remove", name="train", force=True)["parameters"]
    assert (removed["name"], removed["slots"]) == (NAME, ["1.0"])
    assert desk.site.bookings() == set()
    by = [(entry["action"], entry["actor"]["login"]) for entry in desk.site.history()]
    assert (by[0], by[-1]) == (("allocate", "amy"), ("release", "amy"))


def test_a_command_that_ends_at_once(desk: ContainerDesk, engine: PrivateEngine) -> None:
    catalogue = Path(desk.config.containers.frameworks)
    text = catalogue.read_text(encoding="utf-8").replace('["sleep", "600"]', '["true"]')
    catalogue.write_text(text, encoding="utf-8")
    reply = create(desk, gpus=0)["parameters"]
    state = engine.client.inspect_container(NAME)["State"]["Status"]
    warnings = [text for text in reply["warnings"] if not text.startswith("Docker warns: ")]
    # It may end a moment after it was looked at.
    assert bool(warnings) <= (state == "exited")
    assert all("has ended already: container-logs" in warning for warning in warnings)


def create(desk: ContainerDesk, caller: str = "amy", **parameters: Any) -> dict[str, Any]:
    return desk.call(caller, "Create", **{"name": "train", "framework": "pytorch", **parameters})


def test_what_docker_warns_of_is_shown(
    desk: ContainerDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_container = DockerCommands.create_container

    def create_with_a_warning(
        commands: DockerCommands, plan: Plan
    ) -> tuple[ContainerId, list[str]]:
        container, warnings = create_container(commands, plan)
        return container, [*warnings, "Limitation discarded."]

    monkeypatch.setattr(DockerCommands, "create_container", create_with_a_warning)
    assert "Docker warns: Limitation discarded." in create(desk)["parameters"]["warnings"]


@pytest.mark.engine_neutral
def test_a_dry_run_changes_nothing(desk: ContainerDesk, engine: PrivateEngine) -> None:
    plan = create(desk, dry_run=True)["parameters"]["plan"]
    home = desk.users["amy"].home
    assert (plan["name"], plan["user"], plan["mounts"]) == (NAME, "amy", [f"{home}:{home}"])
    assert plan["gpus"][0].startswith("1.0 (MIG-")
    nothing_left(desk, engine)
    assert "has no framework" in error_of(create(desk, dry_run=True, framework="x"))[1]


def nothing_left(desk: ContainerDesk, engine: PrivateEngine) -> None:
    assert engine.client.containers(all=True) == []
    assert desk.site.bookings() == set()


def test_inside_it_is_its_owner_and_no_more(desk: ContainerDesk, engine: PrivateEngine) -> None:
    assert "error" not in create(desk)
    # Into files: dockerd may lose what a short command prints.
    script = "cat /proc/self/status >~/status; touch /etc/x 2>/dev/null || echo refused >~/answer"
    run = engine.client.exec_create(NAME, ["sh", "-c", script])
    engine.client.exec_start(run["Id"])
    until(lambda: not engine.client.exec_inspect(run["Id"])["Running"])
    home = Path(desk.users["amy"].home)
    output = (home / "status").read_text("utf-8")
    facts = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == facts["Gid"].split() == ["4001"] * 4
    assert facts["Groups"].split() == ["4001", "4100"]
    assert [int(facts[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")] == [0, 0, 0]
    assert facts["NoNewPrivs"] == "1"
    assert (home / "answer").read_text("utf-8") == "refused\n"
    assert (home / "answer").stat().st_uid == 4001


@pytest.mark.engine_neutral
class TestRefusals:
    """What the rules forbid is refused, and nothing is left of it."""

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"framework": None, "image": "busybox"}, "has no image"),
            ({"framework": "pytroch"}, "has no framework"),
            ({"name": "a._.4002"}, "root or group ds01-operators"),
            ({"name": "../etc"}, "invalid container name"),
            ({"name": "a/b"}, "invalid container name"),
            ({"user": "ben"}, "root or group ds01-operators"),
            ({"workdir": "../ben"}, "invalid working directory"),
            ({"workdir": "/etc"}, "is not in the home"),
            ({"workdir": "a\nb"}, "invalid working directory"),
            ({"slots": ["9.9"]}, "NO_SUCH_SLOT"),
            ({"gpus": 3}, "USER_AT_LIMIT"),
            ({"mounts": ["/:/host"]}, "mounts"),
            ({"privileged": True}, "privileged"),
            ({"env": ["A=B"]}, "env"),
            ({"command": ["sh"]}, "command"),
        ],
    )
    def test_of_an_order(
        self,
        desk: ContainerDesk,
        engine: PrivateEngine,
        parameters: dict[str, Any],
        message: str,
    ) -> None:
        _, text = error_of(create(desk, **parameters))
        assert message in text
        nothing_left(desk, engine)

    @pytest.mark.parametrize(
        ("home", "message"),
        [
            ("link", "is a symlink"),
            ("missing", "No such file or directory"),
            ("somebody else's", "it belongs to uid 4002"),
            ("exchangeable", "users other than root can change"),
            ("file", "it is not a folder"),
        ],
    )
    def test_of_a_home(
        self, desk: ContainerDesk, engine: PrivateEngine, home: str, message: str
    ) -> None:
        path = Path(desk.users["amy"].home)
        if home == "exchangeable":
            path.parent.chmod(0o777)
        elif home == "somebody else's":
            os.chown(path, 4002, 4002)
        else:
            path.rmdir()
            if home == "link":
                path.symlink_to("/etc")
            elif home == "file":
                path.write_text("", encoding="utf-8")
                os.chown(path, 4001, 4001)
        _, text = error_of(create(desk))
        assert message in text
        nothing_left(desk, engine)

    def test_of_a_catalogue_that_users_can_change(
        self, desk: ContainerDesk, engine: PrivateEngine
    ) -> None:
        Path(desk.config.containers.frameworks).chmod(0o666)
        _, text = error_of(create(desk))
        assert "users other than root can change" in text
        nothing_left(desk, engine)

    def test_of_invalid_limits(self, desk: ContainerDesk, engine: PrivateEngine) -> None:
        limits = desk.site.limits
        limits.write_text(LIMITS.replace("memory: 256m", "memory: lots"), encoding="utf-8")
        _, text = error_of(create(desk))
        assert "defaults.memory: invalid size 'lots'" in text
        nothing_left(desk, engine)

    def test_of_more_containers_than_the_limits_say(
        self, desk: ContainerDesk, engine: PrivateEngine
    ) -> None:
        for number in range(3):
            assert "error" not in create(desk, name=f"c{number}", gpus=0, start=False)
        _, text = error_of(create(desk, name="c3", gpus=0))
        assert "has 3 containers, and may have 3" in text
        assert len(engine.client.containers(all=True)) == 3


class TestOthers:
    """What is somebody else's."""

    @pytest.mark.engine_neutral
    @pytest.mark.parametrize("method", ["Start", "Stop", "Remove"])
    def test_is_refused(self, desk: ContainerDesk, method: str) -> None:
        assert "error" not in create(desk)
        kind, _ = error_of(desk.call("ben", method, name=NAME))
        assert kind in {"Refused", "NotYours"}
        kind, _ = error_of(desk.call("ben", method, name="train"))
        assert kind == "Refused"

    def test_operators_may(self, desk: ContainerDesk, engine: PrivateEngine) -> None:
        assert "error" not in create(desk, "olga", user="amy")
        assert engine.client.inspect_container(NAME)["Config"]["User"] == "4001:4001"
        rows = desk.call("olga", "List")["parameters"]["containers"]
        assert [(row["name"], row["user"]) for row in rows] == [(NAME, "amy")]
        assert "error" not in desk.call("olga", "Stop", name=NAME, kill_after_s=0)
        assert "error" not in desk.call("olga", "Start", name=NAME)
        assert "error" not in desk.call("olga", "Remove", name=NAME, force=True)
        nothing_left(desk, engine)


class TestStart:
    """A container that the service would not make like that is not started."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"Privileged": True},
            {"CapDrop": []},
            {"CapAdd": ["SYS_ADMIN"]},
            {"SecurityOpt": []},
            {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
            {"PidMode": "host"},
            {"NetworkMode": "host"},
            {"IpcMode": "host"},
            {"UTSMode": "host"},
            {"UsernsMode": "host"},
            {"CgroupnsMode": "host"},
            {"Binds": ["/:/host"]},
            {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]},
            {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x"}]},
            {"DeviceCgroupRules": ["a *:* rwm"]},
            {"GroupAdd": ["0"]},
            {"MaskedPaths": []},
            {"ReadonlyPaths": []},
            {"RestartPolicy": {"Name": "always"}},
            {"Runtime": "sandbox"},
            {"Sysctls": {"net.ipv4.ip_forward": "1"}},
            {"User": "0:0"},
            {"Env": []},
        ],
    )
    def test_of_a_container_made_by_hand(
        self, desk: ContainerDesk, engine: PrivateEngine, changes: dict[str, Any]
    ) -> None:
        host = {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "CgroupnsMode": "private",
            "IpcMode": "private",
            "NetworkMode": "none",
        }
        body: dict[str, Any] = {
            "Image": IMAGE,
            "Cmd": ["sleep", "600"],
            "User": changes.pop("User", "4001:4001"),
            "Env": changes.pop("Env", ["NVIDIA_VISIBLE_DEVICES=void"]),
            "HostConfig": {**host, **changes},
            "Labels": {"ds01.managed": "true", "ds01.user": "amy"},
        }
        engine.client.create_container_from_config(body, NAME)  # type: ignore[no-untyped-call]
        kind, text = error_of(desk.call("amy", "Start", name="train"))
        assert (kind, "it has more than the rules allow" in text) == ("Refused", True), text
        assert not engine.client.inspect_container(NAME)["State"]["Running"]

    def test_of_one_that_has_only_what_it_may_have(
        self, desk: ContainerDesk, engine: PrivateEngine
    ) -> None:
        assert "error" not in create(desk, gpus=0, start=False)
        assert "error" not in desk.call("amy", "Start", name="train")
        assert engine.client.inspect_container(NAME)["State"]["Running"]

    def test_after_its_home_was_exchanged(self, desk: ContainerDesk, engine: PrivateEngine) -> None:
        assert "error" not in create(desk, gpus=0, start=False)
        home = Path(desk.users["amy"].home)
        home.rename(home.with_name("moved"))
        home.symlink_to("/etc")
        _, text = error_of(desk.call("amy", "Start", name="train"))
        assert "is a symlink" in text
        assert not engine.client.inspect_container(NAME)["State"]["Running"]

    def test_after_its_owner_has_left_a_group(self, desk: ContainerDesk) -> None:
        assert "error" not in create(desk, gpus=0, start=False)
        desk.users["amy"] = replace(desk.users["amy"], groups=(4001,))
        _, text = error_of(desk.call("amy", "Start", name="train"))
        assert "(GroupAdd)" in text

    def test_on_a_slot_that_is_booked_for_it_no_more(
        self, desk: ContainerDesk, engine: PrivateEngine
    ) -> None:
        assert "error" not in create(desk, slots=["1.0"])
        desk.call("amy", "Stop", name="train", kill_after_s=0)
        allocator = desk.allocator("amy")
        allocator.release(ContainerName(NAME))
        allocator.allocate(UserName("amy"), ContainerName(NAME), slot=SlotId("1.1"))
        kind, text = error_of(desk.call("amy", "Start", name="train"))
        assert (kind, "requests GPU 1.0, which is not booked for it" in text) == ("Refused", True)
        assert not engine.client.inspect_container(NAME)["State"]["Running"]


PULL, MADE, STARTED = (
    "POST /images/create",
    "POST /containers/create",
    r"POST /containers/\w+/start",
)


class TestAnEnd:
    """Whatever ends a creation, nothing is left of it."""

    @pytest.fixture
    def proxy(self, engine: PrivateEngine) -> Iterator[Proxy]:
        with (
            tempfile.TemporaryDirectory(prefix="desk-") as folder,
            Proxy(Path(folder) / "docker.sock", engine.socket) as proxy,
        ):
            yield proxy

    @pytest.fixture
    def desk(self, tmp_path: Path, proxy: Proxy) -> Iterator[ContainerDesk]:
        with open_desk(tmp_path, proxy.url) as desk:
            yield desk

    def test_by_a_release_of_its_slot_meanwhile(
        self, desk: ContainerDesk, engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or its owner would have it beside the quota, until ds01d books it again."""
        start = DockerCommands.start_container

        def release_and_start(commands: DockerCommands, container: ContainerId) -> None:
            desk.allocator("amy").release(ContainerName(NAME))
            start(commands, container)

        monkeypatch.setattr(DockerCommands, "start_container", release_and_start)
        _, text = error_of(create(desk))
        assert "slot 1.0 was released meanwhile" in text
        nothing_left(desk, engine)

    @pytest.mark.parametrize("step", [PULL, MADE, STARTED])
    def test_by_a_caller_who_leaves(
        self, desk: ContainerDesk, engine: PrivateEngine, proxy: Proxy, step: str
    ) -> None:
        hold = proxy.hold(step)
        framework = "missing" if step == PULL else "pytorch"
        call = desk.begin("amy", "Create", name="train", framework=framework)
        assert hold.met.wait(60)
        call.request.withdraw()
        hold.go.set()
        until(lambda: desk.creations == [], what="its end")
        nothing_left(desk, engine)

    @pytest.mark.engine_neutral
    def test_of_the_wait_for_a_slot(self, desk: ContainerDesk, engine: PrivateEngine) -> None:
        for number in range(2):
            assert "error" not in create(desk, name=f"c{number}")
        call = desk.begin("amy", "Create", name="train", framework="pytorch", wait=True)
        until(lambda: any(reply["parameters"]["waiting"] for reply in call.replies))
        call.request.withdraw()
        until(lambda: desk.creations == [], what="its end")
        assert {name for name, _ in desk.site.bookings()} == {"c0._.4001", "c1._.4001"}

    @pytest.mark.parametrize("label", ["token", "another"])
    def test_by_a_ds01d_that_is_killed(
        self, desk: ContainerDesk, engine: PrivateEngine, label: str
    ) -> None:
        """The next one removes what was created and not started, if it is of that creation."""
        made = engine.client.create_container(IMAGE, ["true"], name=NAME, labels={CREATION: label})
        noted = {"name": NAME, "token": "token", "starts": True, "has_failed": False}
        desk.note_creations(noted, noted | {"token": "nothing of it is left"})
        desk.make_service()
        if label == "token":
            until(lambda: engine.client.containers(all=True) == [], what="its removal")
        else:
            time.sleep(0.5)
            assert engine.client.inspect_container(made["Id"])

    def test_by_a_ds01d_that_is_killed_behind_its_start(
        self, desk: ContainerDesk, engine: PrivateEngine
    ) -> None:
        with desk.keep_creations():
            assert "error" not in create(desk, gpus=0)
        assert desk.creations
        desk.make_service()
        until(lambda: desk.creations == [], what="the end of the recovery")
        assert engine.client.inspect_container(NAME)["State"]["Running"]

    def test_by_an_engine_that_is_killed(
        self, desk: ContainerDesk, engine: PrivateEngine, proxy: Proxy
    ) -> None:
        hold = proxy.hold(STARTED)
        call = desk.begin("amy", "Create", name="train", framework="pytorch", gpus=0)
        assert hold.met.wait(60)
        engine.kill()
        hold.go.set()
        kind, text = error_of(call.wait())
        assert (kind, "may still exist" in text) == ("Unavailable", True), text
        engine.start()
        until(lambda: engine.client.containers(all=True) == [], what="its removal")
        until(lambda: desk.creations == [], what="the end")

    def test_by_a_stop_of_ds01d(
        self, desk: ContainerDesk, engine: PrivateEngine, proxy: Proxy
    ) -> None:
        hold = proxy.hold(STARTED)
        call = desk.begin("amy", "Create", name="train", framework="pytorch", gpus=0)
        assert hold.met.wait(60)
        desk.service.stop()
        assert "is stopping" in error_of(call.wait())[1]
        hold.go.set()
        desk.service.join()
        nothing_left(desk, engine)


@contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    """Let this process open so many more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    try:
        # Also those below the highest one have to be taken.
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 300, hard))
        with suppress(OSError):
            while True:
                taken.append(os.dup(taken[0]))
        for _ in range(number):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_end_by_descriptors_that_are_exhausted(
    desk: ContainerDesk, engine: PrivateEngine
) -> None:
    """At each step: with one more from time to time, until they suffice."""
    errors = []
    for number in range(40):
        with capture_logs(), few_descriptors(number):
            reply = create(desk)
        if "error" not in reply:
            break
        errors.append(error_of(reply))
        nothing_left(desk, engine)
        assert desk.creations == []
    assert {kind for kind, _ in errors} == {"Unavailable"}
    assert errors[0][1] == "ds01d: Too many open files"
    assert engine.client.inspect_container(NAME)["State"]["Running"]


@pytest.mark.engine_neutral
def test_how_many_creations_of_a_user_are_served_at_once(desk: ContainerDesk) -> None:
    for number in range(2):
        assert "error" not in create(desk, name=f"c{number}")
    waiting = [
        desk.begin("amy", "Create", name=f"w{number}", framework="pytorch", wait=True)
        for number in range(2)
    ]
    assert "2 creations are in progress for uid 4001" in error_of(create(desk, name="w2"))[1]
    assert "error" not in desk.call("amy", "List")
    for call in waiting:
        call.request.withdraw()
