"""What CUDA or ROCm containers of a host can use: from the driver's word and from package names.

Pure: the caller brings the driver's answer and the packages. A package counts only where
its name or version is known to carry a version of CUDA or ROCm; `cuda-keyring 1.1` and
`cuda-drivers-535` carry others. Versions are compared as numbers, part by part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ds01d.model.cuda import Basis, CudaSupport, Driver, Evidence, Package, Stack, Version

TITLES = {Stack.CUDA: "CUDA", Stack.ROCM: "ROCm"}
_STRENGTH = {basis: place for place, basis in enumerate(Basis)}


def detect_support(driver: Driver | None, packages: Iterable[Package]) -> CudaSupport | None:
    """What containers can use; None where no source has a version.

    The driver decides. Without it a package of a stack counts more than one built for it, and
    CUDA more than ROCm; within a stack the newest version counts.
    """
    evidence = [item for package in packages if (item := _parse_package(package)) is not None]
    if driver is not None:
        evidence.append(_parse_driver(driver))
    if not evidence:
        return None
    evidence.sort(key=_sort_key)
    first = evidence[0]
    # Packages of several versions can be installed beside each other; the newest is what a
    # container can use.
    if first.basis is not Basis.DRIVER:
        same_stack = [item for item in evidence if item.stack is first.stack]
        first = max(same_stack, key=lambda item: item.version)
    evidence.remove(first)
    return CudaSupport(
        stack=first.stack,
        version=first.version,
        architecture=name_architecture(first.stack, first.version),
        evidence=(first, *evidence),
    )


def name_architecture(stack: Stack, version: Version) -> str:
    """The name that the catalogue of images has for a version."""
    if stack is Stack.ROCM:
        return f"ROCM{version[0]}"
    if version >= (12, 8):
        return "CUDA_BLACKWELL"
    return "CUDA_ADA" if version >= (12, 0) else "CUDA_AMPERE"


def format_version(version: Version) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))


def select_gpu_packages(packages: Iterable[Package]) -> Iterator[Package]:
    """The packages of NVIDIA's and AMD's, with a version in the name or not."""
    return (
        package for package in packages if _CONCERNED.search(f"{package.name} {package.version}")
    )


_CONCERNED = re.compile(r"cuda|nvidia|cudnn|nccl|rocm|\bhip")
# cuda-12-3, cuda-toolkit-12-8, libcublas-12-4: the version ends the name.
_IN_NAME = re.compile(
    r"(?:cuda|lib(?:cu[a-z]+|npp|nvjpeg|nvjitlink|nvfatbin|nvvm))(?:-[a-z][a-z0-9]*)*"
    r"-([0-9]+)-([0-9]+)"
)
# cuda, cuda-toolkit-12, and Debian's own: the version of the package is that of CUDA.
_AS_VERSION = re.compile(
    r"(?:cuda|cuda-(?:toolkit|runtime|libraries|libraries-dev|compiler|tools|minimal-build))"
    r"(?:-[0-9]+)?|nvidia-cuda-(?:toolkit|dev)|libcudart[0-9.]+"
)
_FOR_CUDA = re.compile(r"\+cuda([0-9]+)\.([0-9]+)")
_ROCM = re.compile(
    r"rocm(?:-(?:core|dev|libs|utils|developer-tools|language-runtime(?:-dev)?"
    r"|hip-(?:sdk|runtime|runtime-dev|libraries)|opencl(?:-sdk|-runtime)?|ml-(?:sdk|libraries)"
    r"|openmp-sdk))?(?:[0-9]+\.[0-9]+\.[0-9]+)?"
)
# Other parts of ROCm have versions of their own, with that of ROCm behind: 1.0.0.60303-74.
_OF_ROCM = re.compile(
    r"(?:rocm|rocblas|rocfft|rocrand|rocsolver|rocsparse|rocprofiler|roctracer|rccl|comgr|miopen"
    r"|hip|hsa-amd|hsa-rocr|amd-smi)[a-z0-9.-]*"
)
_ROCM_BEHIND = re.compile(r"\.([0-9]{1,2})([0-9]{2})([0-9]{2})(?:-|$)")
_NUMBERS = re.compile(r"(?:[0-9]+:)?([0-9]+)\.([0-9]+)(?:\.([0-9]+))?")


def _parse_driver(driver: Driver) -> Evidence:
    version = (driver.cuda // 1000, driver.cuda % 1000 // 10)
    by = f" {driver.driver}" if driver.driver else ""
    description = f"NVML: the driver{by} runs CUDA up to {format_version(version)}"
    return Evidence(stack=Stack.CUDA, version=version, basis=Basis.DRIVER, description=description)


def _parse_package(package: Package) -> Evidence | None:
    """The version that a package carries, if any."""
    name = package.name.partition(":")[0]

    def make_evidence(stack: Stack, version: Version, basis: Basis = Basis.STACK) -> Evidence:
        description = f"package {name} {package.version}: {TITLES[stack]} {format_version(version)}"
        return Evidence(stack=stack, version=version, basis=basis, description=description)

    if match := _IN_NAME.fullmatch(name):
        return make_evidence(Stack.CUDA, (int(match[1]), int(match[2])))
    numbers = _NUMBERS.match(package.version)
    if numbers and _AS_VERSION.fullmatch(name):
        return make_evidence(Stack.CUDA, (int(numbers[1]), int(numbers[2])))
    if match := _FOR_CUDA.search(package.version):
        return make_evidence(Stack.CUDA, (int(match[1]), int(match[2])), Basis.LIBRARY)
    if numbers and _ROCM.fullmatch(name):
        return make_evidence(
            Stack.ROCM, tuple(int(part) for part in numbers.groups() if part is not None)
        )
    if _OF_ROCM.fullmatch(name) and (match := _ROCM_BEHIND.search(package.version)):
        return make_evidence(Stack.ROCM, tuple(map(int, match.groups())), Basis.LIBRARY)
    return None


def _sort_key(evidence: Evidence) -> tuple[object, ...]:
    newest_first = tuple(-part for part in evidence.version)
    return (
        _STRENGTH[evidence.basis],
        evidence.stack is not Stack.CUDA,
        newest_first,
        evidence.description,
    )
