"""The container commands on a real engine: the seed story, and every way in which it can fail."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from simulation.engine import IMAGE, PrivateEngine
from simulation.proxy import Mode, Proxy
from tests.support.books import until
from tests.support.containers import Done, Yard
from tests.support.daemon import RunningDaemon

pytestmark = pytest.mark.docker

NAME = "test-workflow._.1001"


@pytest.fixture
def yard(tmp_path: Path, engine: PrivateEngine) -> Iterator[Yard]:
    with a_yard(tmp_path, engine) as yard:
        yield yard


@contextmanager
def a_yard(tmp_path: Path, engine: PrivateEngine) -> Iterator[Yard]:
    # A folder of its own: the path of a unix socket has room for a hundred characters only.
    with (
        tempfile.TemporaryDirectory(prefix="yard-") as folder,
        Proxy(Path(folder) / "docker.sock", engine.socket) as proxy,
    ):
        yield Yard(tmp_path, engine, proxy)


def test_the_seed_story(tmp_path: Path, engine: PrivateEngine) -> None:
    with a_yard(tmp_path, engine) as yard:
        seed_story(yard)


def seed_story(yard: Yard) -> None:
    made = yard.run("create", "test-workflow", "pytorch", "--architecture", "CUDA_ADA")
    assert made.returncode == 0, made.stderr
    assert f"{NAME} runs on GPU 1.0, from {IMAGE}" in made.stdout

    (row,) = yard.listed("--all")
    assert (row["name"], row["state"], row["slots"]) == (NAME, "running", ["1.0"])
    assert yard.site.bookings() == {(NAME, "1.0")}
    slots = yard.shown()
    assert f"    - {NAME}\n" in slots  # the allocator's line
    assert slots.count(NAME) >= 2  # the dashboard's too
    record = yard.site.record(NAME)
    assert record is not None
    assert (record["user"], record["gpu_id"], record["priority"]) == ("1001", "1.0", 10)
    assert yard.outcomes(NAME) == [("create_start", "pending"), ("create_success", "success")]
    there = yard.engine.client.inspect_container(NAME)
    uuid = yard.site.uuid("1.0")
    (request,) = there["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == [uuid]
    labels = there["Config"]["Labels"]
    expected = {
        "aime.mlc": "1001",
        "aime.mlc.NAME": "test-workflow",
        "aime.mlc.USER": "1001",
        "aime.mlc.FRAMEWORK": "pytorch-2.5.0",
        "aime.mlc.ARCH": "CUDA_ADA",
        "aime.mlc.GPUS": f"device={uuid}",
        "aime.mlc.DS01_MANAGED": "true",
        "ds01.managed": "true",
        "ds01.user": "1001",
        "ds01.interface": "container-create",
        "ds01.gpu.allocated": "1.0",
        "ds01.gpu.uuid": uuid,
        "ds01.gpu.priority": "10",
        "ds01.gpu.slots": "1.0",
        "ds01.gpu.uuids": uuid,
        "ds01.booking": record["booking_id"],
    }
    assert expected.items() <= labels.items()
    plan = yard.site.plan()
    assert (plan["consistent"], plan["drifts"]) == (True, [])

    gone = yard.run("remove", "test-workflow", "--force")
    assert (gone.returncode, gone.stdout) == (0, f"{NAME} is removed, GPU 1.0 is free\n")
    assert yard.left_of(NAME) == {}
    assert yard.listed("--all") == []
    assert f"- {NAME}" not in yard.shown()
    assert yard.outcomes(NAME)[2:] == [("stop", "success"), ("remove", "success")]


def test_beside_the_daemon_nothing_is_taken_for_drift(yard: Yard) -> None:
    # Until then the command has marked the stop itself, also where Docker's answer to it is late.
    yard.site.configure(policy={"settle": "3s", "absence_grace": "3s"})
    with RunningDaemon(yard.site) as daemon:
        assert yard.call("create", "test-workflow", "pytorch-2.5.0", "--gpus", "2").returncode == 0
        daemon.at_rest(force=True)
        assert yard.call("stop", "test-workflow", "-t", "0").returncode == 0
        daemon.at_rest(force=True)
        assert yard.call("start", "test-workflow").returncode == 0
        daemon.at_rest(force=True)
        daemon.booked((NAME, "1.0"), (NAME, "1.1"))
        assert yard.site.history() == []
        assert yard.call("remove", "test-workflow", "-f").returncode == 0
        daemon.at_rest(force=True)
        daemon.booked()
    assert yard.left_of(NAME) == {}


def test_the_limits_hold_for_every_container(yard: Yard) -> None:
    limits = yard.site.limits.read_text(encoding="utf-8")
    ours = "max_cpus: 64, memory: 128m, memory_swap: 256m, shm_size: 16m, pids_limit: 50"
    yard.site.limits.write_text(limits.replace("priority: 1", f"priority: 1, {ours}", 1), "utf-8")
    done = yard.call("create", "test-workflow", "pytorch-2.5.0")
    assert done.returncode == 0
    host = yard.engine.client.inspect_container(NAME)["HostConfig"]
    given = {
        "MemoryLimit": ((host["Memory"], host["MemorySwap"]), (128 << 20, 256 << 20)),
        "CpuCfsQuota": ((host["CpuQuota"], host["CpuPeriod"]), (6_400_000, 100_000)),
        "PidsLimit": (host["PidsLimit"], 50),
    }
    can = yard.engine.client.info()
    assert all(has == wanted for key, (has, wanted) in given.items() if can[key])
    # A dockerd in a control group without a controller discards what needs it.
    assert done.stderr.count("Docker warns: ") >= sum(not can[key] for key in given)
    assert host["ShmSize"] == 16 << 20
    yard.site.limits.write_text(limits.replace("priority: 1", "priority: 1, memory: x", 1), "utf-8")
    done = yard.call("create", "other", "pytorch-2.5.0")
    assert (done.returncode, "memory: invalid size" in done.stderr) == (1, True)


# --- what fails leaves nothing behind ---------------------------------------------------------

IMAGES, PULL, CREATE, START = (
    "GET /images/",
    "POST /images/create",
    "POST /containers/create",
    r"POST /containers/\w+/start",
)


def failed(yard: Yard, done: Done, why: str) -> None:
    """It ended with an error that says why, in one line; nothing is left, and the log has it."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert why in done.stderr
    assert done.stderr.rstrip().endswith("nothing is left of it"), done.stderr
    assert yard.left_of(NAME) == {}
    assert yard.outcomes(NAME)[-1] == ("create_failed", "failed")
    assert why in yard.site.operations.read_text(encoding="utf-8")


def test_an_image_that_is_nowhere(yard: Yard) -> None:
    done = yard.call("create", "test-workflow", "tensorflow", "--architecture", "CUDA_ADA")
    failed(yard, done, "localhost:1/not/there:1")


@pytest.mark.engine_neutral
def test_no_such_slot(yard: Yard) -> None:
    done = yard.call("create", "test-workflow", "pytorch-2.5.0", "--slot", "9.9")
    failed(yard, done, "NO_SUCH_SLOT")


@pytest.mark.engine_neutral
def test_several_slots_are_booked_all_or_none(yard: Yard) -> None:
    done = yard.call("create", "test-workflow", "pytorch-2.5.0", "--gpus", "3")
    failed(yard, done, "USER_AT_LIMIT (0/2, 3 more asked for)")
    done = yard.call("create", "test-workflow", "pytorch-2.5.0", "--slot", "1.1", "--slot", "2.2")
    assert done.returncode == 0, done.stderr
    assert yard.site.bookings() == {(NAME, "1.1"), (NAME, "2.2")}
    request = yard.engine.client.inspect_container(NAME)["HostConfig"]["DeviceRequests"][0]
    assert request["DeviceIDs"] == [yard.site.uuid("1.1"), yard.site.uuid("2.2")]
    assert yard.site.plan()["consistent"]


def test_a_name_that_is_taken_is_refused_before_anything_is_begun(yard: Yard) -> None:
    yard.engine.run(NAME, start=False)
    done = yard.call("create", "test-workflow", "pytorch-2.5.0")
    assert (done.returncode, "already exists" in done.stderr) == (1, True)
    assert yard.outcomes(NAME) == []
    yard.engine.remove(NAME)
    yard.site.allocator.allocate(NAME, "1001", "1.0")  # somebody creates it just now
    done = yard.call("create", "test-workflow", "pytorch-2.5.0")
    assert (done.returncode, "booked for it already" in done.stderr) == (1, False)
    assert "slot 1.0 is already booked for test-workflow._.1001" in done.stderr
    assert yard.outcomes(NAME) == [], "a create_failed would end the other's creation grace"
    assert yard.site.bookings() == {(NAME, "1.0")}


def test_a_name_that_is_taken_in_the_last_moment(yard: Yard) -> None:
    hold = yard.proxy.hold(CREATE)
    with yard.begun("create", "test-workflow", "pytorch-2.5.0") as running:
        assert hold.met.wait(60)
        assert yard.site.bookings() == {(NAME, "1.0")}
        other = yard.engine.run(NAME, start=False)
        hold.go.set()
        _, complaint = running.communicate(timeout=60)
        assert running.returncode == 1
        assert "already in use" in complaint
        # Decision 373: it may have been made for that very booking.
        assert f"GPU 1.0 stays: a container with the name {NAME} exists" in complaint
        assert yard.site.bookings() == {(NAME, "1.0")}
        assert yard.engine.client.inspect_container(NAME)["Id"] == other
        assert yard.outcomes(NAME)[-1] == ("create_failed", "failed")


@pytest.mark.parametrize(
    ("step", "mode"),
    [
        # What the engine has done by then is the same: nothing.
        pytest.param(IMAGES, Mode.ERROR, marks=pytest.mark.engine_neutral),
        pytest.param(IMAGES, Mode.RESET, marks=pytest.mark.engine_neutral),
        pytest.param(IMAGES, Mode.HALF, marks=pytest.mark.engine_neutral),
        pytest.param(PULL, Mode.ERROR, marks=pytest.mark.engine_neutral),
        (PULL, Mode.RESET),
        (PULL, Mode.HALF),
        pytest.param(CREATE, Mode.ERROR, marks=pytest.mark.engine_neutral),
        (CREATE, Mode.RESET),
        (CREATE, Mode.HALF),
        (START, Mode.ERROR),
        (START, Mode.RESET),
    ],
)
def test_an_engine_in_trouble(yard: Yard, step: str, mode: Mode) -> None:
    yard.proxy.fault(step, mode, first=1)
    framework = "tensorflow" if step == PULL else "pytorch-2.5.0"
    done = yard.call("create", "test-workflow", framework, "--architecture", "CUDA_ADA")
    if (step, mode) == (CREATE, Mode.RESET):
        assert done.returncode == 1
        assert "Docker may still be creating it" in done.stderr
        assert "its booking of GPU 1.0 stays until ds01d repairs it" in done.stderr
        assert yard.site.bookings() == {(NAME, "1.0")}
    else:
        failed(yard, done, "Docker at unix://")


def test_a_container_that_does_not_start(yard: Yard) -> None:
    text = yard.catalogue.read_text(encoding="utf-8")
    yard.catalogue.write_text(text.replace('["sleep", "600"]', '["/not/there"]'), "utf-8")
    failed(yard, yard.call("create", "test-workflow", "pytorch-2.5.0"), "/not/there")


def heard(running: subprocess.Popen[str]) -> None:
    """Wait until it has heard of the signal."""
    assert running.stderr is not None
    assert any(line.startswith("interrupted: ") for line in running.stderr)


def rest(running: subprocess.Popen[str]) -> str:
    """Wait for its end; what it still complains of."""
    assert running.stderr is not None
    complaint = running.stderr.read()
    running.wait(60)
    return complaint


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.engine_neutral), signal.SIGTERM]
)
@pytest.mark.parametrize("step", [IMAGES, PULL, CREATE, START])
def test_a_signal_at_each_step(yard: Yard, step: str, number: signal.Signals) -> None:
    hold = yard.proxy.hold(step)
    framework = "tensorflow" if step == PULL else "pytorch-2.5.0"
    with yard.begun("create", "test-workflow", framework, "--architecture", "CUDA_ADA") as running:
        assert hold.met.wait(60)
        running.send_signal(number)
        heard(running)
        if step != PULL:  # a pull is broken off, all else is waited for
            hold.go.set()
        complaint = rest(running)
        assert running.returncode == 128 + number, complaint
        assert f"interrupted by {number.name}: nothing is left of it" in complaint
        assert yard.left_of(NAME) == {}
        assert yard.outcomes(NAME)[-1] == ("create_failed", "failed")


@pytest.mark.engine_neutral
def test_a_signal_while_the_books_are_locked(yard: Yard) -> None:
    with ExitStack() as lock:
        lock.enter_context(yard.locked())
        with yard.begun("create", "test-workflow", "pytorch-2.5.0") as running:
            until(lambda: yard.outcomes(NAME) == [("create_start", "pending")])
            running.send_signal(signal.SIGINT)
            heard(running)
            lock.close()
            rest(running)
    assert running.returncode == 130
    assert yard.left_of(NAME) == {}


@pytest.mark.parametrize("step", [IMAGES, CREATE, START])
def test_an_engine_that_is_killed(yard: Yard, step: str) -> None:
    hold = yard.proxy.hold(step)
    with yard.begun("create", "test-workflow", "pytorch-2.5.0") as running:
        assert hold.met.wait(60)
        yard.engine.kill()
        hold.go.set()
        _, complaint = running.communicate(timeout=60)
        assert running.returncode == 1
        assert yard.outcomes(NAME)[-1] == ("create_failed", "failed")
        if step == IMAGES:
            assert "nothing is left of it" in complaint
            assert yard.site.bookings() == set()
            return
        assert "its booking of GPU 1.0 stays until ds01d repairs it" in complaint
        assert yard.site.bookings() == {(NAME, "1.0")}
        yard.engine.start()
        if step == START:  # it is there: its owner removes it
            gone = yard.call("remove", "test-workflow")
            assert gone.returncode == 0, gone.stderr
        else:
            with RunningDaemon(yard.site) as daemon:
                daemon.booked()
        until(lambda: yard.left_of(NAME) == {})
