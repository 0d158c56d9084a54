"""The catalogue: what is read of it, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds01d.adapters.host.image_catalogue import (
    REFERENCE,
    find_catalogue,
    parse_catalogue,
    read_catalogue,
)
from ds01d.config import ContainersConfig
from ds01d.decide.cuda import name_architecture
from ds01d.errors import ConfigError
from ds01d.model.creation import Catalogue, Image, Setup
from ds01d.model.cuda import Stack

ROOT = Path(__file__).parents[3]
ONE = '[[image]]\nframework = "pytorch"\nimage = "a/b:1"\n'


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_catalogue(text, origin="f.toml")
    return str(caught.value)


def test_what_is_left_out_has_a_meaning() -> None:
    assert parse_catalogue("", origin="f.toml") == Catalogue(origin="f.toml")
    image = Image(framework="pytorch", version="", architecture="", reference="a/b:1")
    assert parse_catalogue(ONE, origin="f.toml").images == (image,)


def test_the_shipped_catalogue_names_architectures_that_there_are() -> None:
    shipped = read_catalogue(ROOT / "etc/frameworks.toml")
    known = {name_architecture(Stack.CUDA, version) for version in ((11, 8), (12, 4), (12, 8))}
    assert {one.architecture for one in shipped.images} == known | {""}
    assert shipped.setup == Setup(
        command=("bash",), mounts=("{home}/workspace:/workspace",), shm_bytes=16 << 30
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[image]]\nframework = 1", "f.toml: Expected `str`, got `int`"),
        ("[[image]]\nframework = 'a'", "missing required field"),
        ("[[image]]\nimages = 'a'", "unknown field"),
        ("image = ", "is not TOML"),
        (ONE + ONE, "pytorch  is there twice"),
        (ONE.replace("a/b:1", "../../etc"), 'image 1: image: invalid value "../../etc"'),
        (ONE.replace("a/b:1", "a b"), "image 1: image"),
        (ONE.replace("pytorch", "py torch"), "image 1: framework"),
        ("[container]\nmounts = ['{root}/x:/x']", "unknown placeholder {root}"),
        ("[container]\nmounts = ['/x']", 'write "/on/the/host:/in/the/container"'),
        ("[container]\nmounts = ['x:/x']", 'write "/on/the/host:/in/the/container"'),
        ("[container]\nshm_size = 'much'", 'invalid size "much"'),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, why: str) -> None:
    assert why.replace("`", "") in refusal(text)


def test_a_missing_catalogue_says_what_to_do_with_a_path_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r": copy .* there, .* --image") as refused:
        read_catalogue(tmp_path / "none.toml")
    named = Path(str(refused.value).partition(": copy ")[2].partition(" there, ")[0])
    assert read_catalogue(named).images


def test_where_nobody_made_the_usual_catalogue_the_shipped_one_is_read(tmp_path: Path) -> None:
    usual, shipped = ContainersConfig().frameworks, tmp_path / "shipped.toml"
    if usual.exists():
        pytest.skip("this host has a catalogue")
    nothing = tmp_path / "none.toml"
    assert find_catalogue(usual, (nothing, shipped)) == usual
    shipped.write_text(ONE)
    assert find_catalogue(usual, (nothing, shipped)) == shipped
    assert find_catalogue(nothing, (shipped,)) == nothing  # what is named is meant
    assert read_catalogue(find_catalogue(usual)).images


@pytest.mark.parametrize(
    ("reference", "possible"),
    [
        ("busybox", True),
        ("nvcr.io/nvidia/pytorch:24.05-py3", True),
        ("localhost:5000/a/b_c:Latest", True),
        (f"a/b@sha256:{'0' * 64}", True),
        ("", False),
        ("a/../b", False),
        ("../b", False),
        ("a//b", False),
        ("A/b", True),  # a registry
        ("/a", False),
        ("a:", False),
        ("a?b=c", False),
        ("a\n", False),
    ],
)
def test_only_names_of_images_become_part_of_a_request(reference: str, possible: bool) -> None:
    assert bool(REFERENCE.fullmatch(reference)) is possible
