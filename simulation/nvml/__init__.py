"""A simulated NVML: a C library that the real pynvml loads, and the world that it shows.

`world` describes GPUs, MIG devices, processes and faults, and writes the file that the library
reads; `library` compiles the library and says which environment selects it.
"""

from simulation.nvml.library import NAME, Sessions, build, env, sessions
from simulation.nvml.world import SimFault, SimGpu, SimMig, SimProcess, World, full, prod4

__all__ = [
    "NAME",
    "Sessions",
    "SimFault",
    "SimGpu",
    "SimMig",
    "SimProcess",
    "World",
    "build",
    "env",
    "full",
    "prod4",
    "sessions",
]
