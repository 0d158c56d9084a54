"""A CDI specification of the simulated GPUs, as `nvidia-ctk cdi generate` writes one.

A device has several names: index and UUID, "1:0" and UUID for a MIG device; "all" is every one. A
GPU that is cut into MIG devices is none itself (nvidia-container-toolkit, pull request 314). The
device nodes are there in name only: each is the host's /dev/null.
"""

from collections.abc import Iterator, Sequence

from simulation.nvml.world import World

KIND = "nvidia.com/gpu"

Json = dict[str, object]


def specification(world: World, kind: str = KIND) -> Json:
    """Return the specification of a world's GPUs."""
    devices = list(_devices(world))
    nodes = sorted({node for _, found in devices for node in found})
    return {
        "cdiVersion": "0.5.0",
        "kind": kind,
        "devices": [_device(name, found) for name, found in [*devices, ("all", nodes)]],
        # Keeps NVIDIA's runtime from adding what the image's environment asks for.
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [_node("/dev/nvidiactl")],
        },
    }


def _devices(world: World) -> Iterator[tuple[str, list[str]]]:
    """Every name with the device nodes that it brings."""
    for index, gpu in enumerate(world.gpus):
        node = f"/dev/nvidia{gpu.minor}"
        if not gpu.mig:
            for name in (str(index), gpu.uuid):
                yield name, [node]
        for mig in gpu.migs:
            caps = f"/dev/nvidia-caps/gpu{gpu.minor}-gi{mig.gi}-ci{mig.ci}"
            for name in (f"{index}:{mig.index}", mig.uuid):
                yield name, [node, caps]


def _device(name: str, nodes: Sequence[str]) -> Json:
    return {"name": name, "containerEdits": {"deviceNodes": [_node(path) for path in nodes]}}


def _node(path: str) -> Json:
    return {"path": path, "hostPath": "/dev/null"}
