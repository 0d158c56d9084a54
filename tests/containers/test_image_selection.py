"""Which image a framework means, and what is told of one that is not there."""

from __future__ import annotations

import pytest

from ds01d.containers.image_selection import choose_image, version_key
from ds01d.errors import Refused
from ds01d.model.creation import Catalogue, Image


def image(framework: str, version: str, architecture: str = "CUDA_ADA") -> Image:
    return Image(
        framework=framework,
        version=version,
        architecture=architecture,
        reference=f"{framework.lower()}:{version}",
    )


CATALOGUE = Catalogue(
    origin="f.toml",
    images=(
        image("Pytorch", "2.9.0"),
        image("Pytorch", "2.10.0"),
        image("Pytorch", "2.10.0-rc1"),
        image("Pytorch", "2.11.0", "CUDA_BLACKWELL"),
        image("tensorflow", "2.16.1"),
        image("plain", "1", ""),
    ),
)


def asked() -> str:
    raise AssertionError("what runs here does not matter")


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        ("pytorch", "2.10.0"),
        ("PYTORCH", "2.10.0"),
        ("pytorch-2.9.0", "2.9.0"),
        ("pytorch:2.9.0", "2.9.0"),
        ("Pytorch-2.10.0-rc1", "2.10.0-rc1"),
        ("tensorflow", "2.16.1"),
    ],
)
def test_the_newest_that_runs_here(wanted: str, version: str) -> None:
    assert choose_image(CATALOGUE, wanted, lambda: "CUDA_ADA").version == version


def test_what_runs_anywhere_needs_no_look_at_the_host() -> None:
    assert choose_image(CATALOGUE, "plain", asked).version == "1"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("pytroch", "has no framework 'pytroch': did you mean Pytorch"),
        ("tensor", "did you mean tensorflow"),
        ("pytorch-2.9.1", "did you mean Pytorch-2.9.0"),
        ("quux", "it has Pytorch, tensorflow, plain"),
        ("pytorch-2.11.0", "no pytorch-2.11.0 for CUDA_ADA: it has Pytorch-2.11.0 for CUDA_BL"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_near(wanted: str, told: str) -> None:
    with pytest.raises(Refused) as caught:
        choose_image(CATALOGUE, wanted, lambda: "CUDA_ADA")
    assert told in str(caught.value)


def test_versions_compare_as_numbers() -> None:
    ordered = ["", "1.9", "1.10-rc1", "1.10", "1.10.1", "2"]
    assert sorted(ordered, key=version_key) == ordered
