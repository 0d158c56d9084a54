"""What CUDA or ROCm a host has: every row of what is known, and no floats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.cuda import detect_support, format_version, name_architecture, select_gpu_packages
from ds01d.model.cuda import Basis, Driver, Package, Stack


def packages(*texts: str) -> list[Package]:
    return [Package(name=name, version=version) for name, version in map(str.split, texts)]


ROWS = {
    ("cuda-12-3 12.3.2-1",): "cuda 12.3 CUDA_ADA",
    ("cuda-toolkit-12-8 12.8.1-1",): "cuda 12.8 CUDA_BLACKWELL",
    ("cuda-keyring 1.1-1", "libcudnn8 8.9.7.29-1+cuda12.2"): "cuda 12.2 CUDA_ADA",
    ("libnccl2 2.18.5-1+cuda12.2",): "cuda 12.2 CUDA_ADA",
    ("cuda-12-10 12.10.0-1",): "cuda 12.10 CUDA_BLACKWELL",
    ("cuda-toolkit-11-8 11.8.0-1", "cuda-toolkit-12-4 12.4.1-1"): "cuda 12.4 CUDA_ADA",
    ("rocm-dev 6.3.3.60303-74", "hipify-cuda 1.0"): "rocm 6.3.3 ROCM6",
    # Beyond the table: what real hosts have.
    ("cuda-12-9 12.9.0-1", "cuda-12-10 12.10.0-1"): "cuda 12.10 CUDA_BLACKWELL",
    ("cuda-9-2 9.2.148-1", "cuda-10-1 10.1.243-1"): "cuda 10.1 CUDA_AMPERE",
    ("cuda-toolkit-11-8 11.8.0-1",): "cuda 11.8 CUDA_AMPERE",
    ("cuda-toolkit-12-0 12.0.0-1",): "cuda 12.0 CUDA_ADA",
    ("cuda-toolkit-12-7 12.7.0-1",): "cuda 12.7 CUDA_ADA",
    ("cuda-runtime-13-0 13.0.1-1",): "cuda 13.0 CUDA_BLACKWELL",
    ("cuda 12.4.1-1",): "cuda 12.4 CUDA_ADA",
    ("cuda-toolkit-12 12.6.3-1", "cuda-toolkit-12-config-common 12.6.77-1"): "cuda 12.6 CUDA_ADA",
    ("libcublas-12-4 12.4.5.8-1",): "cuda 12.4 CUDA_ADA",
    ("libcublas-dev-12-4:amd64 12.4.5.8-1",): "cuda 12.4 CUDA_ADA",
    ("nvidia-cuda-toolkit 11.5.1-1ubuntu1",): "cuda 11.5 CUDA_AMPERE",
    ("libcudart11.0 11.5.117~11.5.1-1ubuntu1",): "cuda 11.5 CUDA_AMPERE",
    ("tensorrt 10.0.1.6-1+cuda12.4",): "cuda 12.4 CUDA_ADA",
    ("rocm-core6.2.4 6.2.4.60204-139~22.04",): "rocm 6.2.4 ROCM6",
    ("rocm 5.7.0.50700-63~22.04",): "rocm 5.7.0 ROCM5",
    ("rocminfo 1.0.0.60303-74", "rocm-smi-lib 7.4.0.60303-74"): "rocm 6.3.3 ROCM6",
    ("rocm-core 7.0.1.70001-42", "rocm-core6.3.3 6.3.3.60303-74"): "rocm 7.0.1 ROCM7",
    # Both: what is a stack tells more than what was built for one, and CUDA more than ROCm.
    ("rocm-dev 6.3.3.60303-74", "libnccl2 2.18.5-1+cuda12.2"): "rocm 6.3.3 ROCM6",
    ("rocm-dev 6.3.3.60303-74", "cuda-toolkit-12-4 12.4.1-1"): "cuda 12.4 CUDA_ADA",
    ("cuda-toolkit-11-8 11.8.0-1", "libnccl2 2.18.5-1+cuda12.2"): "cuda 12.2 CUDA_ADA",
}


@pytest.mark.parametrize("installed", ROWS)
def test_packages_tell_it(installed: tuple[str, ...]) -> None:
    support = detect_support(None, packages(*installed))
    assert support is not None
    summary = f"{support.stack} {format_version(support.version)} {support.architecture}"
    assert summary == ROWS[installed]
    assert detect_support(None, reversed(packages(*installed))) == support


@pytest.mark.parametrize(
    "installed",
    [
        (),
        ("cuda-drivers-535 535.183.01-1",),
        ("nvidia-driver-535 535.183.01-0ubuntu1",),
        ("cuda-keyring 1.1-1",),
        ("cuda-drivers 550.54.15-1", "cuda-drivers-fabricmanager-550 550.54.15-1"),
        ("libnvidia-compute-535 535.183.01-0ubuntu1", "nvidia-container-toolkit 1.14.6-1"),
        ("cuda-repo-ubuntu2204-12-3-local 12.3.2-545.23.08-1",),
        ("libcudnn9-cuda-12 9.1.0.70-1",),
        ("hipify-cuda 1.0", "rocksdb-tools 7.8.3-2", "whiptail 0.52.23-1"),
        ("cuda-toolkit none", "rocm-core ~", "cuda-12-x 12.1", "cuda--1-2 1"),
    ],
)
def test_some_tell_nothing(installed: tuple[str, ...]) -> None:
    assert detect_support(None, packages(*installed)) is None


@pytest.mark.parametrize(
    ("number", "version", "architecture"),
    [
        (12020, "12.2", "CUDA_ADA"),
        (12080, "12.8", "CUDA_BLACKWELL"),
        (12100, "12.10", "CUDA_BLACKWELL"),
        (11080, "11.8", "CUDA_AMPERE"),
        (13000, "13.0", "CUDA_BLACKWELL"),
    ],
)
def test_the_drivers_word_comes_first(number: int, version: str, architecture: str) -> None:
    installed = packages("rocm-dev 6.3.3.60303-74", "cuda-toolkit-13-2 13.2.0-1")
    support = detect_support(Driver(cuda=number, driver="535.183.01"), installed)
    assert support is not None
    assert (support.stack, format_version(support.version)) == (Stack.CUDA, version)
    assert support.architecture == architecture
    assert (
        support.evidence[0].description == f"NVML: the driver 535.183.01 runs CUDA up to {version}"
    )
    assert len(support.evidence) == 3


def test_evidence_is_in_order_of_what_it_is_worth() -> None:
    support = detect_support(
        Driver(cuda=12020),
        packages(
            "libnccl2 2.18.5-1+cuda12.10",
            "rocm-dev 6.3.3.60303-74",
            "cuda-12-9 12.9.0-1",
            "cuda-12-10 12.10.0-1",
            "rocminfo 1.0.0.60303-74",
        ),
    )
    assert support is not None
    assert [item.basis for item in support.evidence] == [
        Basis.DRIVER,
        *[Basis.STACK] * 3,
        *[Basis.LIBRARY] * 2,
    ]
    assert [item.description.split(":")[-1] for item in support.evidence] == [
        " the driver runs CUDA up to 12.2",
        " CUDA 12.10",
        " CUDA 12.9",
        " ROCm 6.3.3",
        " CUDA 12.10",
        " ROCm 6.3.3",
    ]


def test_what_decided_comes_first_even_if_it_is_worth_less() -> None:
    support = detect_support(None, packages("cuda-11-8 11.8.0-1", "libnccl2 2.18.5-1+cuda12.2"))
    assert support is not None
    assert support.evidence[0].description == "package libnccl2 2.18.5-1+cuda12.2: CUDA 12.2"


versions = st.tuples(st.integers(1, 30), st.integers(0, 30))


@given(st.lists(versions, min_size=1, max_size=5))
def test_versions_are_compared_as_numbers(found: list[tuple[int, int]]) -> None:
    names = [f"cuda-toolkit-{major}-{minor}" for major, minor in found]
    support = detect_support(None, [Package(name=name, version="1-1") for name in names])
    assert support is not None
    assert support.version == max(found)
    assert support.architecture == name_architecture(Stack.CUDA, max(found))


@given(st.lists(st.builds(Package, name=st.text(), version=st.text())))
def test_no_name_breaks_it(any_packages: list[Package]) -> None:
    detect_support(None, any_packages)
    list(select_gpu_packages(any_packages))
