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


class TestRace:
    """Two ask in the same second."""

    def test_each_gets_a_gpu_of_their_own(self, lab: PresentLab) -> None:
        with RunningDaemon(lab.site):
            users = ["alice", "bob", "alice", "bob"]
            askers = [
                lab.docker("-d", IMAGE, "sleep", "600", LAB_USER=user, LAB_PAUSE_S=1)
                for user in users
            ]
            containers = [finish(asker).split()[-1] for asker in askers]
            given = [lab.devices(container) for container in containers]
            assert sorted(given) == sorted([uuid] for uuid in lab.uuids)
            until(lambda: not lab.reserved(), what="reservations that became bookings")
            until(lambda: lab.users() == sorted(users), what=lab.users)

    def test_who_finds_none_waits_for_one(self, lab: PresentLab) -> None:
        with RunningDaemon(lab.site):
            containers = [lab.run_container(LAB_USER=user) for user in ("alice", "bob") * 2]
            waiting = lab.docker("-d", IMAGE, "sleep", "600", LAB_USER="wanda")
            until(lambda: [e for e in lab.site.history() if e["action"] == "allocate"][3:])
            lab.engine.client.remove_container(containers[2], force=True)
            assert lab.devices(finish(waiting).split()[-1]) == [lab.uuids[2]]


class TestRefusedArguments:
    """`docker run --gpus 2`: the wrapper's list of two UUIDs is one that docker refuses."""

    def test_the_reservation_goes_and_the_history_names_the_process(self, lab: PresentLab) -> None:
        with RunningDaemon(lab.site):
            asker = lab.docker("--name", "x", IMAGE, "sleep", "600", gpus=2, LAB_PAUSE_S=2)
            assert lab.wait_for_reservation() == "x"
            until(lambda: lab.holders() == {"0": ["x"], "1": ["x"]}, what=lab.holders)
            output = finish(asker)
            assert asker.returncode not in (0, 1), output
            lab.wait_until_free()
            reasons = {entry["reason"] for entry in lab.releases()}
            (reason,) = reasons
            assert f"process {asker.pid} (" in reason
            assert "of alice, which ended without a container" in reason


class TestProcess:
    """A reservation lives as long as the process that asked."""

    def test_a_pull_may_take_longer_than_a_creation(self, lab: PresentLab) -> None:
        lab.site.configure(policy={"creation_grace": "1s"})
        with RunningDaemon(lab.site) as daemon:
            asker = lab.docker(IMAGE, "true", LAB_PAUSE_S=30)
            name = lab.wait_for_reservation()
            daemon.outlast(2.0)
            daemon.kill()
            daemon.start()
            daemon.outlast(2.0)
            assert lab.reserved() == [name]
            text = lab.site.ctl("explain", name).stdout
            assert "reserved since" in text
            assert f"for process {asker.pid} (" in text
            asker.send_signal(signal.SIGKILL)
            asker.wait()
            lab.wait_until_free()

    def test_it_ends_at_the_limit_although_it_sleeps(self, lab: PresentLab) -> None:
        lab.site.configure(policy={"creation_grace": "1s", "reservation_limit": "4s"})
        with RunningDaemon(lab.site) as daemon:
            asker = lab.docker(IMAGE, "true", LAB_PAUSE_S=60)
            lab.wait_for_reservation()
            daemon.outlast(2.0)
            assert lab.reserved()
            lab.wait_until_free()
            assert asker.poll() is None

    def test_it_counts_for_the_quota(self, lab: PresentLab) -> None:
        with RunningDaemon(lab.site):
            asker = lab.docker(IMAGE, "true", LAB_PAUSE_S=60)
            lab.wait_for_reservation()
            lab.run_container()
            third = lab.docker(IMAGE, "true")
            assert "quota" in finish(third)
            asker.kill()
            until(lambda: not lab.reserved())
            lab.run_container()

    def test_the_container_gets_it_and_nothing_ends_with_the_process(self, lab: PresentLab) -> None:
        with RunningDaemon(lab.site) as daemon:
            container = lab.run_container("--name", "train")
            until(lambda: not lab.reserved() or lab.reserved() == ["train"])
            daemon.sweeps(2)
            until(lambda: lab.holders() == {"0": ["train"]}, what=lab.holders)
            lab.engine.client.stop(container, timeout=0)
            daemon.sweeps(2)
            until(lambda: lab.holders() == {"0": ["train"]}, what=lab.holders)
            lab.engine.client.remove_container(container)
            lab.wait_until_free()

    def test_anothers_container_does_not_take_it(self, lab: PresentLab) -> None:
        with RunningDaemon(lab.site) as daemon:
            asker = lab.docker(IMAGE, "true", LAB_PAUSE_S=60)
            name = lab.wait_for_reservation()
            lab.engine.run("thief._.2", devices=[lab.uuids[0]])
            daemon.sweeps(2)
            assert lab.reserved() == [name]
            asker.kill()
            until(lambda: not lab.reserved())


class TestMlcCreate:
    """A name is booked, a container of it made, removed, and made again."""

    def test_the_gap_is_nobodys(self, lab: PresentLab) -> None:
        lab.site.configure(policy={"creation_grace": "1s"})
        with RunningDaemon(lab.site):
            gap = lab.site.folder / "gap"
            asker = lab.script("mlc-create.sh", "nlp._.1001", IMAGE, LAB_STEP_S=2, LAB_GAP=gap)
            until(gap.exists, what="the gap between the two containers")
            other = lab.run_container(LAB_USER="wanda", gpus=1)
            assert lab.devices(other) == [lab.uuids[1]]
            output = finish(asker)
            assert asker.returncode == 0, output
            assert lab.devices("nlp._.1001") == [lab.uuids[0]]
            until(lambda: not lab.reserved(), what="the end of the reservation")
            until(lambda: lab.holders().get("0") == ["nlp._.1001"], what=lab.holders)

    @pytest.mark.parametrize("step", ["allocate", "remove"])
    def test_its_death_frees(self, lab: PresentLab, step: str) -> None:
        with RunningDaemon(lab.site):
            asker = lab.script("mlc-create.sh", "nlp._.1001", IMAGE, LAB_END=step, LAB_STEP_S=1)
            assert asker.wait(30) == -signal.SIGKILL
            lab.wait_until_free()


def test_broken_limits(lab: PresentLab) -> None:
    """The last good ones count; without any, nobody waits three minutes for nothing."""
    with RunningDaemon(lab.site) as daemon:
        lab.site.limits.write_text("groups: [", encoding="utf-8")
        daemon.sweeps(1)
        answer = lab.docker(IMAGE, "true", LAB_PATIENCE_S=60)
        output = finish(answer)
        assert answer.returncode == 1
        assert output.startswith("quota: limits cannot be read")
