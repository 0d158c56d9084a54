"""The CUDA or ROCm version of a host, and the evidence for it. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from ds01d.model.primitives import Word

Version = tuple[int, ...]


class Stack(Word):
    """The GPU platform that programs are built for."""

    CUDA = "cuda"
    ROCM = "rocm"


class Basis(Word):
    """A kind of evidence for a stack, the strongest first."""

    DRIVER = "driver"  # the newest CUDA that the driver runs
    STACK = "stack"  # a package of CUDA or ROCm itself
    LIBRARY = "library"  # a package that was built for one


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """NVML's answer: the newest CUDA, as 1000 * major + 10 * minor, and the driver's version."""

    cuda: int
    driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed package."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One piece of evidence for a version of a stack; `description` is its text."""

    stack: Stack
    version: Version
    basis: Basis
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaSupport:
    """What containers can use; the evidence that decided comes first."""

    stack: Stack
    version: Version
    architecture: str
    evidence: tuple[Evidence, ...]
