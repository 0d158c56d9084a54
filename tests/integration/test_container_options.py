"""The options that the lab's own commands have, with the meaning that their users know."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from simulation.engine import IMAGE, PrivateEngine
from tests.support.containers import Yard
from tests.support.terminal import conversation

pytestmark = pytest.mark.docker

A, B, C = "a._.1001", "b._.1001", "c._.1001"


@pytest.fixture
def yard(tmp_path: Path, engine: PrivateEngine) -> Yard:
    return Yard(tmp_path, engine)


def make(yard: Yard, *words: str) -> dict[str, Any]:
    """Create a container; gives what Docker has of it."""
    made = yard.call("create", *words)
    assert made.returncode == 0, made.stderr
    shown: dict[str, Any] = yard.engine.client.inspect_container(f"{words[0]}._.1001")
    return shown


def test_cpu_only_books_nothing_and_shows_no_gpu(yard: Yard) -> None:
    # The host's version of CUDA is unknown here: without a GPU it does not matter.
    shown = make(yard, "a", "pytorch", "--cpu-only")
    assert "NVIDIA_VISIBLE_DEVICES=void" in shown["Config"]["Env"]
    assert not shown["HostConfig"]["DeviceRequests"]
    assert yard.site.bookings() == set()
    for words in (("--gpus", "1"), ("--slot", "1.0")):
        refused = yard.call("create", "b", "pytorch", "--cpu-only", *words)
        assert refused.returncode == 1
        assert "--cpu-only and a GPU contradict" in refused.stderr


@pytest.mark.engine_neutral
def test_a_version_or_an_image_behind_the_name(yard: Yard) -> None:
    ways = (("pytorch", "2.5.0"), ("pytorch-2.5.0",), ("pytorch:2.5.0",), (IMAGE,))
    for name, words in zip("abcd", ways, strict=True):
        labels = make(yard, name, *words, "--num-gpus", "0")["Config"]["Labels"]
        expected = "custom" if words == (IMAGE,) else "pytorch-2.5.0"
        assert labels["aime.mlc.FRAMEWORK"] == expected, words


@pytest.mark.engine_neutral
def test_a_misspelt_framework_is_no_image(yard: Yard) -> None:
    refused = yard.call("create", "a", "pytroch", "2.5.0", "--cpu-only")
    assert "did you mean pytorch" in refused.stderr
    assert "did you mean" in yard.call("create", "a", "pytorch", "9.9", "--cpu-only").stderr


def test_folders_of_ones_own(yard: Yard) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        work, data, private = (Path(folder) / name for name in ("work", "data", "private"))
        for place, mode in ((work, 0o777), (data, 0o755), (private, 0o700)):
            place.mkdir()
            place.chmod(mode)
        shown = make(yard, "a", "pytorch", "--cpu-only", "-w", str(work), "-d", str(data))
        binds = [f"{work}:/workspace", f"{data}:/data:ro"]
        assert shown["HostConfig"]["Binds"] == binds
        # What is the owner's to read cannot be mounted to be written to; and nothing of others.
        for option, wrong in (("-w", data), ("-w", private), ("-d", private), ("-w", "/x:/etc")):
            refused = yard.call("create", "b", "pytorch", "--cpu-only", option, str(wrong))
            assert refused.returncode == 1, refused
            assert "mount" in refused.stderr
    assert yard.left_of(B) == {}


def test_all_of_ones_own_and_nobody_elses(yard: Yard) -> None:
    for name in ("a", "b"):
        make(yard, name, "pytorch", "--cpu-only")
    other = yard.call("create", "c", "pytorch", "--cpu-only", uid=1002)
    assert other.returncode == 0, other.stderr
    planned = yard.call("stop", "--all", "--dry-run")
    assert planned.stdout.splitlines() == [
        "dry run, nothing is changed", f"would stop {A}", f"would stop {B}"
    ]  # fmt: skip
    assert yard.call("remove", "--all").stdout == "no container to remove\n"  # none is stopped
    done = yard.call("stop", "--all", "--force", "--verbose")
    assert done.returncode == 0, done.stderr
    assert f"{A} is stopped" in done.stdout
    assert "(0 s were allowed)" in done.stdout
    assert yard.call("remove", "--all", "-v").returncode == 0
    assert [row["name"] for row in yard.listed("--all", uid=None)] == ["c._.1002"]
    assert yard.call("stop", "a", "--all").returncode == 1
    assert "Missing argument 'NAME'" in yard.call("stop").stderr


@pytest.mark.engine_neutral
def test_a_dry_run_says_what_the_command_would_do(yard: Yard) -> None:
    make(yard, "a", "pytorch-2.5.0", "--slot", "1.0")
    before = yard.site.state.read_bytes()
    for words, code, text in (
        (("remove", "a"), 1, f"{A} is running: container-stop it first, or use --force"),
        (("remove", "a", "-f"), 0, f"would remove {A}, and give back GPU 1.0"),
        (("stop", "a"), 0, f"would stop {A}, which keeps GPU 1.0 for a while"),
        (("start", A), 0, f"{A} is already running"),
        (("start", "nothing"), 1, 'no container "nothing"'),
        (("enter", "a"), 0, f"would run in {A}: sh -c"),
    ):
        verb, *rest = words
        done = yard.call(verb, "--dry-run", *rest)
        assert (done.returncode, text in done.stdout + done.stderr) == (code, True), done
        assert yard.engine.client.inspect_container(A)["State"]["Running"], words
        assert yard.site.state.read_bytes() == before, words


@pytest.mark.engine_neutral
def test_guided_asks_which(yard: Yard) -> None:
    for name in ("a", "b"):
        make(yard, name, "pytorch", "--cpu-only")
    answers = [("Name", "z\n"), ("no container 'z'", "b\n"), ("Stop it now?", "y\n")]
    code, drawn = conversation(yard.command("stop", "--guided", "-f"), answers, yard.env())
    assert code == 0, drawn
    assert "Ends everything that runs in the container" in drawn
    assert f"container-stop {B}" in drawn
    assert [row["name"] for row in yard.listed()] == [A]
    refused = yard.call("start", "--guided")
    assert refused.returncode == 1
    assert "--guided needs a terminal; without one: container-start NAME" in refused.stderr
    assert "before" in yard.call("list", "--guided").stdout
