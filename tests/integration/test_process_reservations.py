"""Many callers at once, each a process that asks, and then creates a container or dies."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import docker
import pytest

from simulation import nvml
from simulation.engine_client import EngineClient
from simulation.fake_engine import FakeEngine, request
from tests.support.books import until
from tests.support.callers import Caller
from tests.support.daemon import RunningDaemon
from tests.support.fixtures import NvmlWorld
from tests.support.present_lab import PresentLab, present_lab
from tests.support.proofs import CALLERS_AT_ONCE

AT_ONCE = CALLERS_AT_ONCE
CALLERS = max(40, 2 * AT_ONCE)
KILLS = max(2, AT_ONCE // 16)
LONGEST_S = AT_ONCE / 20
GPUS, USERS, QUOTA = 8, 12, 2


@pytest.fixture
def lab(tmp_path: Path, fake_engine: FakeEngine, nvml_world: NvmlWorld) -> Iterator[PresentLab]:
    with present_lab(tmp_path, EngineClient(fake_engine.url), nvml_world) as lab:
        nvml_world.set(nvml.full(GPUS))
        members = ", ".join(f"user{number}" for number in range(USERS))
        lab.site.limits.write_text(
            "defaults: {gpu_hold_after_stop: null, max_mig_instances: 0}\n"
            f"groups: {{all: {{members: [{members}], max_mig_instances: {QUOTA}}}}}\n",
            encoding="utf-8",
        )
        yield lab


class Storm:
    """The callers, and who has what by what they were told."""

    def __init__(self, lab: PresentLab, engine: FakeEngine) -> None:
        self.lab, self.engine = lab, engine
        self.lock = threading.Lock()
        self.numbers = count()
        self.outcomes: Counter[str] = Counter()
        self.held: dict[str, str] = {}
        self.problems: list[str] = []
        self.failures: list[BaseException] = []

    def work(self, seed: int) -> None:
        draw = random.Random(seed)
        try:
            while self.served < CALLERS:
                self.call(draw, f"user{draw.randrange(USERS)}", f"job{next(self.numbers)}")
        except BaseException as error:
            self.failures.append(error)
            raise

    @property
    def served(self) -> int:
        """Those that got a GPU and ended. How many are refused meanwhile depends on the machine."""
        return self.outcomes["created"] + self.outcomes["died"]

    def call(self, draw: random.Random, user: str, name: str) -> None:
        caller = Caller(self.lab.site.folder, self.lab.socket, user)
        end = time.monotonic() + 240
        while caller.booking is None:
            refused = caller.reply.get("parameters", {}).get("code")
            if refused == "USER_AT_LIMIT":
                self.outcomes[refused] += 1
                caller.end()
                return
            if time.monotonic() > end:
                raise AssertionError(f"{name}: {caller.reply}")
            time.sleep(draw.uniform(0.1, AT_ONCE / 50))
            caller.ask_again()
        uuid = str(caller.booking["device"])
        self.note(uuid, user)
        time.sleep(draw.uniform(0.0, LONGEST_S))
        if draw.random() < 0.4:
            self.outcomes["died"] += 1
            self.forget(uuid)
            caller.end(kill=draw.random() < 0.5)
            return
        client = docker.APIClient(base_url=self.engine.url)
        host = client.create_host_config(network_mode="none")
        host["DeviceRequests"] = [request(uuid)]
        container = client.create_container("ds01d-test:latest", name=name, host_config=host)["Id"]
        client.start(container)
        caller.end()
        time.sleep(draw.uniform(0.0, LONGEST_S))
        self.outcomes["created"] += 1
        self.forget(uuid)
        client.remove_container(container, force=True)
        client.close()

    def note(self, uuid: str, user: str) -> None:
        with self.lock:
            if uuid in self.held:
                self.problems.append(f"{uuid} of {self.held[uuid]} given to {user}")
            self.held[uuid] = user
            if Counter(self.held.values())[user] > QUOTA:
                self.problems.append(f"{user} has more than {QUOTA}")

    def forget(self, uuid: str) -> None:
        """Right before it ends: from then on it may be another's."""
        with self.lock:
            del self.held[uuid]


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_a_storm_of_callers_with_kills(lab: PresentLab, fake_engine: FakeEngine) -> None:
    storm = Storm(lab, fake_engine)
    with RunningDaemon(lab.site) as daemon:
        threads = [threading.Thread(target=storm.work, args=(seed,)) for seed in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for number in range(KILLS):
            wanted = (number + 1) * CALLERS // (KILLS + 1)
            until(lambda wanted=wanted: storm.served >= wanted or storm.failures, 300)  # type: ignore[misc]
            daemon.kill()
            daemon.start()
        for thread in threads:
            thread.join(300)
        assert not storm.failures
        assert not storm.problems
        assert storm.outcomes["created"] > CALLERS // 10
        assert storm.outcomes["died"] > CALLERS // 10
        lab.wait_until_free()
        daemon.sweeps(1)
        assert not lab.site.status()["drifts"]
        daemon.signal(signal.SIGTERM)
    assert all(entry["outcome"] != "open" for entry in lab.site.history())
