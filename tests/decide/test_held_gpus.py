"""What holds a GPU with Docker as the books: each form of a request, as Docker answers it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ds01d.adapters.docker.parsing import read_container
from ds01d.config import ExemptConfig
from ds01d.model.books import MISSING, AllocatorState, Unreadable
from ds01d.model.drift import FindingKind
from ds01d.model.primitives import Wall
from tests.support.build import ALWAYS_UNLIMITED, Life, config, gpu, inventory, with_docker_books

G = [f"GPU-{n}0000000-0000-0000-0000-000000000000" for n in range(4)]
WRAPPER = {"ds01.managed": "true", "ds01.user": "alice", "ds01.container_type": "docker"}
INFRASTRUCTURE = {
    "ds01.protected": "true",
    "ds01.monitoring": "true",
    "ds01.container_type": "infrastructure",
    "com.docker.compose.project": "monitoring",
}


def requests(*requests_: dict[str, Any]) -> dict[str, Any]:
    known = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    return {"DeviceRequests": [{**known, **request} for request in requests_]}


def inspected(
    host: dict[str, Any],
    env: tuple[str, ...] = (),
    labels: dict[str, str] | None = None,
    *,
    default_runtime: str = "nvidia",
    **fields: Any,
) -> Any:
    """A running container where the default runtime is NVIDIA's."""
    answer = {
        "Id": "c" * 64,
        "Name": "/work",
        "Created": "2027-01-15T07:00:00Z",
        "State": {"Status": "running", "StartedAt": "2027-01-15T07:00:01Z"},
        "Config": {"Env": list(env), "Labels": labels or {}, "Image": "aime-pytorch"},
        "HostConfig": {"Runtime": default_runtime, **host},
        **fields,
    }
    return read_container(json.dumps(answer).encode(), default_runtime=default_runtime)


def settled(container: Any, **fields: Any) -> Life:
    gpus = inventory(*(gpu(n, uuid=uuid) for n, uuid in enumerate(G)))
    nothing = Unreadable(reason="no such file", digest=MISSING)
    settings = config()
    exempt = ExemptConfig(labels=("ds01.protected=true", "ds01.monitoring"), names=("ds01-prom*",))
    settings = with_docker_books(msgspec.structs.replace(settings, exempt=exempt))
    known: dict[str, Any] = {"gpu": gpus, "state": nothing, "limits": ALWAYS_UNLIMITED}
    life = Life(settings, **(known | fields | {"passwd": {1001: "alice"}}))
    life.after(60)
    # What an index means is known of those that started while ds01d watched.
    life.host.run(replace(container, started=Wall(life.host.wall)))
    return life.after(60)


def slots(life: Life) -> set[str]:
    """Which it holds."""
    state = life.plan().decision.snapshot.state
    assert isinstance(state, AllocatorState)
    return {slot.id for slot in state.slots.values() if slot.containers}


def kinds(life: Life) -> set[str]:
    return {finding.kind.value for finding in life.plan().findings}


ALL_ENV = ("NVIDIA_VISIBLE_DEVICES=all",)


@pytest.mark.parametrize(
    ("container", "held", "findings"),
    [
        pytest.param(
            inspected(requests({"DeviceIDs": [G[1]]}), ALL_ENV, WRAPPER), {"1"}, set(), id="one"
        ),
        pytest.param(
            inspected(requests({"DeviceIDs": [G[1], G[3]]})), {"1", "3"}, set(), id="two UUIDs"
        ),
        pytest.param(
            inspected(requests({"DeviceIDs": ["0", "2"]})), {"0", "2"}, set(), id="indices"
        ),
        pytest.param(
            inspected(requests({"DeviceIDs": [G[0]]}, {"DeviceIDs": [G[2], G[3]]})),
            {"0", "2", "3"},
            set(),
            id="several device requests",
        ),
        pytest.param(
            inspected(requests({"Count": 2}), ALL_ENV),
            {"0", "1"},
            {"broad-request"},
            id="a count",
        ),
        pytest.param(inspected(requests({"Count": -1})), set(), {"broad-request"}, id="--gpus all"),
        pytest.param(
            inspected(requests({"Count": -1}), labels={**WRAPPER, "ds01.gpus": "all"}),
            set(),
            {"broad-request"},
            id="container-create --cpu-only",
        ),
        pytest.param(
            inspected({}, ALL_ENV), set(), {"broad-request"}, id="all from the image's environment"
        ),
        # Before Docker 27.3 a request without count and ids left it to the image (moby 48483).
        pytest.param(
            inspected(requests({}), ALL_ENV), set(), {"broad-request"}, id="an older Compose's gpu"
        ),
        pytest.param(inspected(requests({})), set(), set(), id="the same, nothing in the image"),
        pytest.param(
            inspected({}, (*ALL_ENV, f"NVIDIA_VISIBLE_DEVICES={G[1]},{G[2]}"), WRAPPER),
            {"1", "2"},
            set(),
            id="-e against the image",
        ),
        pytest.param(
            inspected(
                {"Runtime": "nvidia"},
                (f"NVIDIA_VISIBLE_DEVICES={G[1]},{G[2]}",),
                {"ds01.gpu.uuids": f"{G[1]},{G[2]}", "ds01.user": "alice"},
                default_runtime="runc",
            ),
            {"1", "2"},
            set(),
            id="several by mlc",
        ),
        pytest.param(inspected({}, ("NVIDIA_VISIBLE_DEVICES=void",)), set(), set(), id="void"),
        pytest.param(inspected({}, ("NVIDIA_VISIBLE_DEVICES=none",)), set(), set(), id="none"),
        pytest.param(inspected({}, ALL_ENV, default_runtime="runc"), set(), set(), id="runc"),
        pytest.param(
            inspected(
                {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={G[2]}"]}]}
            ),
            {"2"},
            set(),
            id="CDI",
        ),
        pytest.param(
            inspected({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]}),
            set(),
            {"broad-request"},
            id="CDI, all",
        ),
        pytest.param(
            inspected(
                {
                    "Devices": [
                        {"PathOnHost": f"/dev/{node}", "PathInContainer": f"/dev/{node}"}
                        for node in ("nvidia3", "nvidiactl", "nvidia-uvm")
                    ]
                }
            ),
            {"3"},
            set(),
            id="device nodes",
        ),
        pytest.param(
            inspected({}, labels={**WRAPPER, "ds01.gpu.uuids": G[1], "ds01.gpu.slots": "1"}),
            set(),
            {"label-contradiction"},
            id="labels alone",
        ),
        pytest.param(
            inspected(requests({"DeviceIDs": [G[1]]}), labels={**WRAPPER, "ds01.gpu_slot": G[2]}),
            {"1"},
            {"label-contradiction"},
            id="a label of another device",
        ),
        pytest.param(
            inspected(
                requests({"DeviceIDs": [G[1], G[2]]}),
                labels={**WRAPPER, "ds01.gpu_slot": f"{G[1]},{G[2]}", "ds01.gpu_ephemeral": "true"},
            ),
            {"1", "2"},
            set(),
            id="the wrapper's label of two devices",
        ),
        pytest.param(
            inspected(
                requests({"DeviceIDs": [G[0], G[2]]}),
                labels={
                    "ds01.managed": "true",
                    "ds01.interface": "orchestration",
                    "ds01.gpu.allocated": "0,2",
                    "ds01.gpu.slots": "0,2",
                    "ds01.gpu.slot_count": "2",
                    "ds01.gpu.uuids": f"{G[0]},{G[2]}",
                    "devcontainer.workspaceFolder": "/workspace",
                },
            ),
            {"0", "2"},
            set(),
            id="mlc's labels",
        ),
        pytest.param(
            inspected({"Privileged": True}, default_runtime="runc"), set(), set(), id="privileged"
        ),
        pytest.param(
            inspected(requests({"Count": -1}), labels=INFRASTRUCTURE),
            set(),
            set(),
            id="infrastructure by label",
        ),
        pytest.param(
            inspected(requests({"DeviceIDs": [G[1]]}), Name="/ds01-prometheus"),
            set(),
            set(),
            id="infrastructure by name",
        ),
        pytest.param(
            inspected(requests({"DeviceIDs": [G[1]]}), labels={**WRAPPER, **INFRASTRUCTURE}),
            {"1"},
            set(),
            id="a user's container that says it is infrastructure",
        ),
    ],
)
def test_what_a_form_holds(container: Any, held: set[str], findings: set[str]) -> None:
    life = settled(container)
    assert slots(life) == held
    assert kinds(life) == findings


def test_one_with_all_gpus_takes_what_it_computes_on_and_a_guess_says_whose_it_is() -> None:
    """A Compose project with `capabilities: [gpu]`."""
    labels = {
        "com.docker.compose.project": "web",
        "com.docker.compose.project.working_dir": "/home/alice/web",
    }
    life = settled(inspected(requests({"Count": -1}), labels=labels)).use(G[2], "c" * 64).after(60)
    assert slots(life) == set()
    assert {finding.kind: finding.reason for finding in life.plan().findings} == {
        FindingKind.BROAD_REQUEST: "foreign container work (cccccccccccc) asks for all GPUs,"
        " computes on 2, perhaps of alice (by its folder)",
        FindingKind.FOREIGN_USE: "foreign container work (cccccccccccc) uses 2,"
        " perhaps of alice (by its folder)",
    }


def test_a_cpu_only_container_that_computes_is_reported_with_the_slot() -> None:
    labels = {**WRAPPER, "ds01.gpus": "all"}
    life = settled(inspected(requests({"Count": -1}), labels=labels)).use(G[2], "c" * 64).after(60)
    (broad,) = (f for f in life.plan().findings if f.kind is FindingKind.BROAD_REQUEST)
    assert broad.reason == (
        "asks for all GPUs, booked is nothing, computes on 2, perhaps of alice (by its label)"
    )


def test_mig_that_was_switched_on_keeps_its_old_holder() -> None:
    life = settled(inspected(requests({"DeviceIDs": [G[2]]}))).stop("work").after(60)
    assert slots(life) == {"2"}
    divided = [gpu(n, uuid=uuid, mig=n == 2) for n, uuid in enumerate(G)]
    life.host.gpu = inventory(*divided)
    life.after(600)
    assert slots(life) == {"2"}
    assert kinds(life) == {"unhealthy-gpu", "booking-without-device"}
    life.remove("work").after(600)
    assert slots(life) == set()
    state = life.plan().decision.snapshot.state
    assert isinstance(state, AllocatorState)
    assert set(state.slots) == {"0", "1", "3"}
