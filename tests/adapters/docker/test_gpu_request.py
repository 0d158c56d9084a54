"""Every form in which a container can ask for a GPU, and that nothing else looks like one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.docker.engine_info import read_info
from ds01d.adapters.docker.gpu_claims import MountPoint
from ds01d.adapters.docker.gpu_request import HostConfig, read_request
from ds01d.adapters.docker.parsing import read_container
from ds01d.errors import Malformed
from ds01d.model.containers import (
    NO_REQUEST,
    Container,
    DeviceRef,
    GpuRequestKind,
    RefKind,
    Request,
)

GPU = "GPU-8f2a9c1e-3b4d-4e5f-a6b7-c8d9e0f1a2b3"
MIG = "MIG-90ab4554-483b-4ca6-a15d-6593dcad66dd"
LEGACY = f"MIG-{GPU}/7/0"
RECORDED = Path(__file__).parent.parent.parent / "data" / "docker-inspect-mlc-container.json"

Json = Mapping[str, object]


def ask(
    *requests: Json,
    env: Sequence[str] = (),
    runtime: str = "runc",
    nodes: Sequence[str] = (),
    default: str = "runc",
    known: Collection[str] = (),
    mounts: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
    rules: Sequence[str] = (),
) -> Request:
    """What is read from a host configuration, as it is after its way through JSON."""
    host = {
        "Runtime": runtime,
        "DeviceRequests": list(requests) or None,
        "Devices": [{"PathOnHost": node, "PathInContainer": node} for node in nodes],
        "Annotations": annotations,
        "DeviceCgroupRules": rules,
    }
    typed = msgspec.json.decode(msgspec.json.encode(host), type=HostConfig)
    return read_request(
        typed,
        env,
        default_runtime=default,
        nvidia_runtimes=known,
        mounts=[MountPoint(destination=path) for path in mounts],
    )


def gpus(*ids: str, count: int = 0, driver: str = "") -> Json:
    return {
        "Driver": driver,
        "Count": count,
        "DeviceIDs": list(ids) or None,
        "Capabilities": [["gpu"]],
        "Options": {},
    }


def cdi(*names: str) -> Json:
    return {"Driver": "cdi", "Count": 0, "DeviceIDs": list(names), "Capabilities": None}


def named(*refs: tuple[RefKind, str]) -> Request:
    devices = tuple(DeviceRef(kind=kind, text=text) for kind, text in refs)
    return Request(ask=GpuRequestKind.NAMED, devices=devices)


def visible(value: str) -> Request:
    return ask(env=[f"NVIDIA_VISIBLE_DEVICES={value}"], runtime="nvidia")


ALL = Request(ask=GpuRequestKind.ALL)
ZERO = (RefKind.INDEX, "0")

NAMES = [
    ("0", [ZERO]),
    ("12", [(RefKind.INDEX, "12")]),
    ("0:1", [(RefKind.MIG_INDEX, "0:1")]),
    (GPU, [(RefKind.UUID, GPU)]),
    (GPU.lower(), [(RefKind.UUID, GPU)]),
    (MIG, [(RefKind.UUID, MIG)]),
    (LEGACY, [(RefKind.LEGACY_MIG, LEGACY)]),
    ("0,1:0", [ZERO, (RefKind.MIG_INDEX, "1:0")]),
    (f" {MIG} , 0 ", [(RefKind.UUID, MIG), ZERO]),
    ('"device=0,1"', [ZERO, (RefKind.INDEX, "1")]),
    ("device=0", [ZERO]),
    (f"'device={MIG}'", [(RefKind.UUID, MIG)]),
    ("0,0", [ZERO]),
]


@pytest.mark.parametrize(("text", "refs"), NAMES)
def test_every_form_of_a_name_is_read(text: str, refs: list[tuple[RefKind, str]]) -> None:
    """In a device request as in the environment."""
    assert ask(gpus(text)) == named(*refs)
    assert visible(text) == named(*refs)


def test_docker_splits_a_list_and_leaves_the_quotes() -> None:
    assert ask(gpus('"device=0', '1:0"')) == named(ZERO, (RefKind.MIG_INDEX, "1:0"))


def test_counts_and_all() -> None:
    assert ask(gpus(count=-1)) == ALL
    assert ask(gpus(count=2)) == Request(ask=GpuRequestKind.COUNT, count=2)
    assert ask(gpus("all")) == ALL
    assert ask(gpus("device=all")) == ALL
    assert ask(gpus(count=10**18)) == Request(ask=GpuRequestKind.COUNT, count=1024)


def test_a_request_without_count_and_devices_leaves_it_to_the_environment() -> None:
    """`--gpus 0` brings the hook all the same, and CUDA's images say "all"."""
    assert ask(gpus()) == NO_REQUEST
    assert ask(gpus(), env=["NVIDIA_VISIBLE_DEVICES=all"]) == ALL


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("0", ZERO),
        ("gpu0", ZERO),
        ("0:1", (RefKind.MIG_INDEX, "0:1")),
        ("mig0:1", (RefKind.MIG_INDEX, "0:1")),
        (GPU, (RefKind.UUID, GPU)),
        (MIG, (RefKind.UUID, MIG)),
    ],
)
def test_cdi_devices(name: str, ref: tuple[RefKind, str]) -> None:
    assert ask(cdi(f"nvidia.com/gpu={name}")) == named(ref)
    assert ask(cdi(f"nvidia.com/gpu={name}", "nvidia.com/gpu=7")) == named(
        ref, (RefKind.INDEX, "7")
    )
    assert ask(cdi("other.org/nic=0", f"nvidia.com/gpu={name}")) == named(ref)


def test_cdi_all_and_strangers() -> None:
    assert ask(cdi("nvidia.com/gpu=all")) == ALL
    assert ask(cdi("management.nvidia.com/gpu=all")) == ALL
    assert ask(cdi("other.org/gpu=0")) == NO_REQUEST


@pytest.mark.parametrize("kind", ["nvidia.com/gpu", "runtime.nvidia.com/gpu"])
def test_cdi_names_beside_plain_ones(kind: str) -> None:
    """In the environment (NVIDIA's runtime in its mode cdi) and in --gpus (Docker 29) alike."""
    assert visible(f"{kind}=0") == ask(gpus(f"{kind}=0")) == named(ZERO)
    two = f"{kind}={MIG},1:0"
    assert visible(two) == ask(gpus(two)) == named((RefKind.UUID, MIG), (RefKind.MIG_INDEX, "1:0"))
    assert visible(f"{kind}=all") == ask(gpus(f"{kind}=all")) == ALL
    # What brings no GPU makes no request unclear, and a device of NVIDIA's of another kind does.
    for name in ("lab.example/nic=0", "amd.com/gpu=0", "nvidia.com/gds=all"):
        assert visible(f"{kind}=0,{name}") == ask(gpus(f"{kind}=0", name)) == named(ZERO)
        assert visible(name) == ask(gpus(name)) == NO_REQUEST
    assert visible("nvidia.com/pgpu=0") == claimed(["nvidia.com/pgpu=0"])
    assert visible(f"{kind}=first") == claimed(["first"])


def test_both_ways_of_docker_29_to_a_gpu_are_understood() -> None:
    for driver in ("nvidia.cdi", "nvidia.runtime-hook"):
        assert ask({**gpus("0", driver=driver), "Capabilities": None}) == named(ZERO)
        assert ask(gpus(count=-1, driver=driver)) == ALL
        assert ask(gpus(count=2, driver=driver)) == Request(ask=GpuRequestKind.COUNT, count=2)
    assert ask(gpus("0", driver="nvidia.com/gpu")).ask is GpuRequestKind.UNCLEAR


def test_only_requests_that_reach_nvidia_count() -> None:
    assert ask({**gpus("0"), "Capabilities": [["tpu"]]}) == NO_REQUEST
    assert ask({**gpus("0"), "Capabilities": None}) == NO_REQUEST
    assert ask(gpus("0", driver="amd")) == NO_REQUEST
    assert ask(gpus("0", driver="nvidia")) == named(ZERO)
    assert ask({**gpus("0"), "Capabilities": [["compute", "utility"]]}) == named(ZERO)
    assert ask({**gpus("0"), "Capabilities": [None, ["nvidia", "gpu"]]}) == named(ZERO)


@pytest.mark.parametrize("value", ["", "void", "none"])
def test_an_environment_that_asks_for_nothing(value: str) -> None:
    assert visible(value) == NO_REQUEST


def test_the_environment_counts_only_with_nvidias_runtime() -> None:
    env = ["PATH=/bin", "NVIDIA_VISIBLE_DEVICES=all"]
    assert ask(env=env) == NO_REQUEST
    assert ask(env=env, runtime="nvidia") == ALL
    assert ask(env=env, runtime="nvidia-cdi") == ALL
    assert ask(env=env, runtime="", default="nvidia") == ALL
    assert ask(env=env, runtime="runc", default="nvidia") == NO_REQUEST
    assert ask(runtime="nvidia") == NO_REQUEST


def test_a_device_request_wins_over_the_environment() -> None:
    env = ["NVIDIA_VISIBLE_DEVICES=all"]
    assert ask(gpus("0"), env=env, runtime="nvidia") == named(ZERO)
    assert ask(cdi("nvidia.com/gpu=0"), env=env, runtime="nvidia") == named(ZERO)
    assert ask(cdi("other.org/gpu=0"), env=env, runtime="nvidia") == ALL
    assert ask(gpus("none"), env=env, runtime="nvidia") == NO_REQUEST


def test_device_nodes_are_minors_and_nothing_else_is_a_gpu() -> None:
    nodes = ["/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-caps/nvidia-cap1"]
    assert ask(nodes=nodes) == named((RefKind.MINOR, "3"))


def test_what_is_named_beside_a_count_is_not_lost() -> None:
    """Compose can ask twice; which of the two counts is the runtime's affair."""
    name = "MIG-41c12c3f-0000-4000-8000-000000000001"
    more = named((RefKind.INDEX, "3"), (RefKind.UUID, name)).devices
    both = Request(ask=GpuRequestKind.COUNT, count=2, devices=more)
    assert ask(gpus(count=2), gpus("3", name, "1")) == both
    assert ask(gpus("3", name, "0"), gpus(count=2)) == both
    assert both.describe() == f"2 GPUs, 3, {name}"


def test_several_forms_at_once_are_united() -> None:
    both = ask(gpus("0"), cdi("nvidia.com/gpu=1"), nodes=["/dev/nvidia2"])
    assert isinstance(both, Request)
    assert {ref.text for ref in both.devices} == {"0", "1", "2"}
    assert ask(gpus("0"), gpus(count=2)) == Request(ask=GpuRequestKind.COUNT, count=2)
    assert ask(gpus(count=2), cdi("nvidia.com/gpu=all")) == ALL


SHORT = [
    ("GPU-8f2a9c1e", (RefKind.SHORT_UUID, "GPU-8f2a9c1e")),
    ("gpu-8F", (RefKind.SHORT_UUID, "GPU-8f")),
    ("MIG-41", (RefKind.SHORT_UUID, "MIG-41")),
    ("1.0", (RefKind.MIG_INDEX, "1:0")),
    ("0000:3b:00.0", (RefKind.PCI, "0000:3b:00.0")),
    ("00000000:3B:00.0", (RefKind.PCI, "00000000:3b:00.0")),
    ("3b:00.0", (RefKind.PCI, "3b:00.0")),
    ("0000:3B:00", (RefKind.PCI, "0000:3b:00")),
]


@pytest.mark.parametrize(("text", "ref"), SHORT)
def test_short_uuids_pci_addresses_and_slot_ids_are_names(
    text: str, ref: tuple[RefKind, str]
) -> None:
    assert ask(gpus(text)) == visible(text) == named(ref)


@pytest.mark.parametrize("name", ["MIG-", "x\ny", "-1", "0000:3b", "GPU-xyz", "0..1", "1.0.0"])
def test_a_name_in_a_form_we_do_not_know_is_unclear_and_neither_nothing_nor_a_device(
    name: str,
) -> None:
    answer = ask(gpus("0", name))
    assert answer.ask is GpuRequestKind.UNCLEAR
    assert answer.devices == named(ZERO).devices
    (text,) = answer.unclear
    assert text.isprintable()
    assert text == name.replace("\n", r"\n")
    assert ask(gpus(name), gpus(count=-1)) == ALL


def claimed(texts: Sequence[str], *refs: tuple[RefKind, str]) -> Request:
    return Request(ask=GpuRequestKind.UNCLEAR, devices=named(*refs).devices, unclear=tuple(texts))


def test_all_in_any_case_is_all() -> None:
    """libnvidia-container compares without regard to case."""
    assert visible("ALL") == visible("0,All") == ask(gpus("ALL")) == ALL


@pytest.mark.parametrize(
    "path", ["nvidia-container-runtime", "/usr/bin/nvidia-container-runtime.experimental"]
)
def test_nvidias_runtime_under_another_name(path: str) -> None:
    info = read_info(
        msgspec.json.encode(
            {
                "ID": "X",
                "DockerRootDir": "/d",
                "DefaultRuntime": "gpu",
                "Runtimes": {"gpu": {"path": path}, "runc": {"path": "runc"}, "shim": {}},
            }
        )
    )
    assert info.nvidia_runtimes == {"gpu"}
    env = ["NVIDIA_VISIBLE_DEVICES=0"]
    assert ask(env=env, runtime="gpu", known=info.nvidia_runtimes) == named(ZERO)
    assert ask(env=env, runtime="", default="gpu", known=info.nvidia_runtimes) == named(ZERO)
    assert ask(env=env, runtime=path) == named(ZERO)


def test_a_runtime_that_is_not_known_may_bring_gpus() -> None:
    env = ["NVIDIA_VISIBLE_DEVICES=0"]
    text = "NVIDIA_VISIBLE_DEVICES=0 under runtime runsc"
    assert ask(env=env, runtime="runsc") == claimed([text], ZERO)
    assert ask(env=["NVIDIA_VISIBLE_DEVICES=void"], runtime="runsc") == NO_REQUEST
    assert ask(runtime="runsc") == NO_REQUEST
    for plain in ("runc", "crun", "", "io.containerd.runc.v2"):
        assert ask(env=env, runtime=plain, default="") == NO_REQUEST


@pytest.mark.parametrize("runtime", ["runc", "nvidia"])
@pytest.mark.parametrize("kind", ["GPU", "NVIDIA-GPU", "gpu_t4"])
def test_swarm_resources_are_unclear(runtime: str, kind: str) -> None:
    env = [f"DOCKER_RESOURCE_{kind}={GPU},1", "DOCKER_RESOURCE_SSD=1"]
    assert ask(env=env, runtime=runtime) == claimed(
        [env[0]], (RefKind.UUID, GPU), (RefKind.INDEX, "1")
    )
    assert ask(env=[f"DOCKER_RESOURCE_{kind}="], runtime=runtime) == NO_REQUEST


@pytest.mark.parametrize(
    ("path", "refs"),
    [
        ("0", [ZERO]),
        (GPU, [(RefKind.UUID, GPU)]),
        ("all", []),
        ("cdi/nvidia.com/gpu/0:1", [(RefKind.MIG_INDEX, "0:1")]),
    ],
)
def test_devices_named_by_volume_mounts_are_unclear(
    path: str, refs: list[tuple[RefKind, str]]
) -> None:
    mount = f"/var/run/nvidia-container-devices/{path}"
    assert ask(mounts=[mount, "/data"]) == claimed([f"mount {mount}"], *refs)
    assert ask(mounts=["/var/run/nvidia-container-devices/imex/0"]) == NO_REQUEST


def test_annotations_and_odd_cdi_kinds_are_unclear() -> None:
    key, value = "cdi.k8s.io/gpus", "nvidia.com/gpu=0"
    assert ask(annotations={key: value}) == claimed([f"annotation {key}={value}"], ZERO)
    assert ask(annotations={key: "other.org/nic=0", "note": value}) == NO_REQUEST
    operators = {f"nvidia.{key}": value}
    assert ask(annotations=operators) == claimed([f"annotation nvidia.{key}={value}"], ZERO)
    assert ask(cdi("nvidia.com/mig=1g.5gb")) == claimed(["nvidia.com/mig=1g.5gb"])
    assert ask(cdi("nvidia.com/gds=all", "nvidia.com/mofed=all")) == NO_REQUEST


@pytest.mark.parametrize(
    "node",
    [
        "/dev/dri",
        "/dev/dri/renderD128",
        "/dev/nvidia-caps",
        "/dev/nvidia-caps/nvidia-cap12",
        "/dev",
    ],
)
def test_nodes_by_which_some_gpu_may_be_reached_are_unclear(node: str) -> None:
    assert ask(nodes=[node]) == claimed([f"device {node}"])
    assert ask(nodes=[node, "/dev/nvidia0"]) == claimed([f"device {node}"], (RefKind.MINOR, "0"))


def test_device_cgroup_rules_are_unclear() -> None:
    assert ask(rules=["c 195:* rwm"]) == claimed(["device cgroup rule c 195:* rwm"])
    assert ask(rules=["a *:* rwm"]).ask is GpuRequestKind.UNCLEAR
    assert ask(rules=["c 81:* rmw", "b 195:0 r", "c 195:0 m"]) == NO_REQUEST


@pytest.mark.parametrize(
    "node", ["/dev/nvidia0", "/dev//nvidia0", "/dev/./nvidia0", "/dev/char/195:0"]
)
def test_a_node_however_it_is_written(node: str) -> None:
    assert ask(nodes=[node]) == named((RefKind.MINOR, "0"))


def test_the_recorded_container() -> None:
    (recorded,) = msgspec.json.decode(RECORDED.read_bytes(), type=list[msgspec.Raw])
    container = read_container(bytes(recorded), default_runtime="runc")
    assert container.request == named((RefKind.UUID, MIG))
    assert container.labelled
    assert (container.name, container.state) == ("proj2._.0", "created")
    assert container.started is container.finished is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(["all", "none", "void", "0", "0:1", GPU, MIG, LEGACY, "nvidia.com/gpu=0"])
IDS = st.lists(WORDS | st.text(), max_size=4) | st.none()
DEVICE_REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "Driver": st.sampled_from(["", "cdi", "nvidia"]) | JSON,
        "Count": st.integers() | JSON,
        "DeviceIDs": IDS | JSON,
        "Capabilities": st.just([["gpu"]]) | JSON,
    },
)
HOST = st.fixed_dictionaries(
    {},
    optional={
        "Runtime": st.sampled_from(["nvidia", "runc"]) | JSON,
        "Privileged": st.booleans() | JSON,
        "DeviceRequests": st.lists(DEVICE_REQUEST | JSON, max_size=3) | JSON,
        "Devices": JSON | st.lists(st.fixed_dictionaries({"PathOnHost": st.text()}), max_size=2),
    },
)
INSPECT = st.fixed_dictionaries(
    {
        "Id": st.just("c0ffee") | JSON,
        "Name": st.just("/train._.1001") | JSON,
        "State": st.just({"Status": "running"}) | JSON,
        "Config": st.fixed_dictionaries({"Env": st.lists(st.text(), max_size=2)}) | JSON,
        "HostConfig": HOST | JSON,
    },
    optional={"Created": st.text() | JSON},
)


@given(INSPECT | JSON)
def test_any_json_is_a_container_or_malformed(answer: object) -> None:
    try:
        container = read_container(msgspec.json.encode(answer), default_runtime="nvidia")
    except Malformed:
        return
    assert isinstance(container, Container)
    request = container.request
    assert isinstance(request, Request)
    assert (request.ask is GpuRequestKind.UNCLEAR) == bool(request.unclear)
    assert all(text.isprintable() for text in request.unclear)
    if request.ask is not GpuRequestKind.UNCLEAR:  # which has what may be meant
        assert (request.ask is GpuRequestKind.NAMED) == bool(request.devices)
        assert (request.ask is GpuRequestKind.COUNT) == bool(request.count)


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed_at_worst(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_container(body, default_runtime="")


@pytest.mark.parametrize("digits", [10, 4_301, 100_000])
@pytest.mark.parametrize("form", ["{}", "gpu{}", "1:{}", "mig{}:0", "1.{}"])
def test_a_number_of_thousands_of_digits_is_no_index(form: str, digits: int) -> None:
    """Python refuses to understand it (ValueError): no pass worked any more."""
    text = form.format("9" * digits)
    assert ask(gpus(text)) == claimed([text[:120]])


def test_of_very_many_names_some_are_kept_and_the_rest_makes_it_unclear() -> None:
    request = ask(gpus(*map(str, range(50_000))))
    assert (request.ask, len(request.devices)) == (GpuRequestKind.UNCLEAR, 512)
    assert request.unclear == ("50000 devices",)
    odd = ask(gpus(*(f"odd{number}" for number in range(50_000))))
    assert (odd.devices, len(odd.unclear), odd.unclear[-1]) == ((), 33, "49968 more")
    known = Request(ask=GpuRequestKind.NAMED, devices=request.devices)
    assert known.describe().endswith(", 62, 63, 448 more")
