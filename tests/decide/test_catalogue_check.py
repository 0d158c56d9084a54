"""Whether an image of the catalogue can be used, by what the engine and its registry have."""

from __future__ import annotations

import pytest

from ds01d.decide.catalogue_check import check_image
from ds01d.model.catalogue_check import (
    ImageVerdict,
    InRegistry,
    LocalImage,
    NotInRegistry,
    RegistryImage,
)
from ds01d.model.creation import Image
from ds01d.model.primitives import Source, Unknown

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
HERE = LocalImage(architecture="amd64", digests=frozenset({A}))
FOREIGN = LocalImage(architecture="arm64", digests=frozenset({A}))
THERE = RegistryImage(digest=A, architectures=frozenset({"amd64", "arm64"}))
OTHER = RegistryImage(digest=B, architectures=frozenset({"amd64"}))
ARM = RegistryImage(digest=A, architectures=frozenset({"arm64"}))
GONE = NotInRegistry(reason="manifest unknown")
SILENT = Unknown(source=Source.DOCKER, reason="cannot reach docker.io: timed out")
OK, WRONG, UNKNOWN = ImageVerdict.OK, ImageVerdict.WRONG, ImageVerdict.UNKNOWN


@pytest.mark.parametrize(
    ("local", "registry", "verdict", "remark"),
    [
        (HERE, THERE, OK, ""),
        (None, THERE, OK, ""),
        (HERE, SILENT, OK, "cannot reach docker.io"),
        (None, SILENT, UNKNOWN, "cannot reach docker.io"),
        (HERE, GONE, OK, "not in the registry"),
        (None, GONE, WRONG, "not in the registry"),
        (HERE, OTHER, OK, "has changed since it was pulled"),
        (None, ARM, WRONG, "has no amd64: arm64"),
        (FOREIGN, SILENT, WRONG, "is for arm64, this host is amd64"),
        (None, RegistryImage(digest=A, architectures=frozenset()), OK, ""),
    ],
)
def test_a_tag(
    local: LocalImage | None, registry: InRegistry, verdict: ImageVerdict, remark: str
) -> None:
    image = Image(framework="a", version="", architecture="", reference="a/b:1")
    found = check_image(image, "amd64", local, registry, None)
    assert found.verdict is verdict
    assert remark in "; ".join(found.remarks)
    assert bool(remark) == bool(found.remarks)


@pytest.mark.parametrize(
    ("local", "registry", "tag", "verdict", "remark"),
    [
        (None, THERE, THERE, OK, ""),
        (HERE, THERE, OTHER, WRONG, f"the tag is now {B}"),
        (HERE, SILENT, SILENT, OK, "cannot reach"),
        (None, SILENT, THERE, UNKNOWN, "cannot reach"),
        (HERE, THERE, GONE, WRONG, "its tag is not in the registry"),
        (HERE, THERE, None, OK, ""),  # pinned without a tag
    ],
)
def test_a_pinned_tag(
    local: LocalImage | None,
    registry: InRegistry,
    tag: InRegistry | None,
    verdict: ImageVerdict,
    remark: str,
) -> None:
    image = Image(framework="a", version="", architecture="", reference=f"a/b:1@{A}")
    found = check_image(image, "amd64", local, registry, tag)
    assert (found.verdict, found.digest) == (verdict, A)
    assert remark in "; ".join(found.remarks)
