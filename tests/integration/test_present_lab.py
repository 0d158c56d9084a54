"""What happens on a lab's present server, with ds01d behind its allocator, and a real engine.

The callers are the lab's scripts in other words: a wrapper that becomes docker, and mlc-create.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from simulation.engine_client import IMAGE
from tests.support.books import until
from tests.support.daemon import RunningDaemon
from tests.support.fixtures import NvmlWorld
from tests.support.present_lab import PresentLab, finish, present_lab

pytestmark = pytest.mark.docker


@pytest.fixture
def lab(tmp_path: Path, engine: PrivateEngine, nvml_world: NvmlWorld) -> Iterator[PresentLab]:
    with present_lab(tmp_path, engine, nvml_world) as lab:
        yield lab


def test_who_asks_in_the_same_second(lab: PresentLab) -> None:
    """Each gets a GPU of their own; who finds none waits for one (situation 1)."""
    with RunningDaemon(lab.site) as daemon:
        users = ["alice", "bob", "alice", "bob"]
        askers = [
            lab.docker("-d", IMAGE, "sleep", "600", LAB_USER=user, LAB_PAUSE_S=0.5)
            for user in users
        ]
        containers = [finish(asker).split()[-1] for asker in askers]
        given = [lab.devices(container)[0] for container in containers]
        assert sorted(given) == sorted(lab.uuids)
        until(lambda: not lab.reserved(), what="reservations that became bookings")
        # Of the labels one is a guess: who reserved is still known.
        until(lambda: lab.users() == sorted(users), what=lab.users)
        waiting = lab.docker("-d", IMAGE, "sleep", "600", LAB_USER="wanda")
        lab.engine.client.stop(containers[2], timeout=0)  # a stopped one keeps it
        daemon.sweeps(1)
        assert waiting.poll() is None
        lab.engine.client.remove_container(containers[2])
        assert lab.devices(finish(waiting).split()[-1]) == [given[2]]


def test_arguments_that_docker_refuses(lab: PresentLab) -> None:
    """The wrapper's list of two UUIDs is one: the reservation goes, and is explained (2)."""
    with RunningDaemon(lab.site):
        # It pauses until ds01d has shown what is reserved, also on a busy machine.
        asker = lab.docker("--name", "x", IMAGE, "sleep", "600", gpus=2, LAB_PAUSE_S=10)
        assert lab.wait_for_reservation() == "x"
        until(lambda: lab.holders() == {"0": ["x"], "1": ["x"]}, what=lab.holders)
        output = finish(asker)
        assert asker.returncode not in (0, 1), output
        lab.wait_until_free()
        (reason,) = {entry["reason"] for entry in lab.releases()}
        assert f"process {asker.pid} (" in reason
        assert "of alice, which ended without a container" in reason


def test_a_job_that_has_ended_is_in_nobodys_way(lab: PresentLab) -> None:
    """It stays, and its GPU is free at once: the next job of a user at the limit has it (3)."""
    job = ("--label", "ds01.interface=api", "--name")
    with RunningDaemon(lab.site):
        assert finish(lab.docker(*job, "job1", IMAGE, "true")) == ""
        lab.run_container("--name", "keep")
        lab.run_container(*job, "job2")
        assert lab.engine.client.inspect_container("job1")["State"]["Status"] == "exited"
        until(lambda: not lab.reserved(), what="reservations that became bookings")
        # Who is at the limit is told what holds.
        assert finish(lab.docker(*job, "job3", IMAGE, "true")) in ("quota: keep\n", "quota: job2\n")


def test_a_reservation_lives_as_long_as_the_process(lab: PresentLab) -> None:
    """A pull takes longer than a creation; ds01d is killed; nobody else's container takes it."""
    lab.site.configure(policy={"creation_grace": "1s"})
    with RunningDaemon(lab.site) as daemon:
        asker = lab.docker(IMAGE, "true", LAB_PAUSE_S=60)
        name = lab.wait_for_reservation()
        thief = lab.engine.run("thief._.2", devices=[lab.uuids[0]])
        daemon.kill()
        daemon.start()
        daemon.outlast(2.0)
        assert lab.reserved() == [name]
        assert f"for process {asker.pid} (" in lab.site.ctl("explain", name).stdout
        lab.engine.client.remove_container(thief, force=True)
        # It counts for the quota, which is two.
        lab.run_container("--name", "train")
        assert finish(lab.docker(IMAGE, "true")) == f"quota: {name}\n"
        asker.kill()
        until(lambda: not lab.reserved(), what="the end of the reservation")
        until(lambda: lab.holders() == {"1": ["train"]}, what=lab.holders)


def test_the_gap_between_two_containers_of_a_name_is_nobodys(lab: PresentLab) -> None:
    lab.site.configure(policy={"creation_grace": "1s"})
    with RunningDaemon(lab.site):
        gap = lab.site.folder / "gap"
        asker = lab.script("mlc-create.sh", "nlp._.1001", IMAGE, LAB_STEP_S=1.5, LAB_GAP=gap)
        until(gap.exists, what="the gap between the two containers")
        other = lab.run_container(LAB_USER="wanda")
        assert lab.devices(other) == [lab.uuids[1]]
        output = finish(asker)
        assert asker.returncode == 0, output
        assert lab.devices("nlp._.1001") == [lab.uuids[0]]
        until(lambda: not lab.reserved(), what="the end of the reservation")
        until(lambda: lab.holders().get("0") == ["nlp._.1001"], what=lab.holders)
        for name in (other, "nlp._.1001"):
            lab.engine.client.remove_container(name, force=True)
        # Dead before its first container, and in the gap.
        for step in ("allocate", "remove"):
            dying = lab.script("mlc-create.sh", "nlp._.1001", IMAGE, LAB_END=step)
            assert dying.wait(60) == -signal.SIGKILL
            lab.wait_until_free()


def test_broken_limits(lab: PresentLab) -> None:
    """The last good ones count; without any, nobody waits three minutes for nothing (7)."""
    with RunningDaemon(lab.site) as daemon:
        lab.site.limits.write_text("groups: [", encoding="utf-8")
        daemon.sweeps(1)
        lab.run_container()
        daemon.stop()
        (lab.site.state_dir / "limits.json").unlink()
        daemon.start()
        asker = lab.docker(IMAGE, "true", LAB_PATIENCE_S=60)
        output = finish(asker)
        assert asker.returncode == 1
        assert output.startswith("quota: limits cannot be read")
