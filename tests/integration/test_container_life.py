"""What becomes of a container after its creation: stopped, started, removed, and by whom."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.engine import IMAGE, PrivateEngine
from simulation.proxy import Mode, Proxy
from tests.support.books import until
from tests.support.containers import Registry, Yard
from tests.support.daemon import ROOT, RunningDaemon
from tests.support.peers import public_socket
from tests.support.terminal import conversation

pytestmark = pytest.mark.docker

NAME = "a._.1001"
STRANGER = 1002


@pytest.fixture
def yard(tmp_path: Path, engine: PrivateEngine) -> Iterator[Yard]:
    with (
        tempfile.TemporaryDirectory(prefix="yard-") as folder,
        Proxy(Path(folder) / "docker.sock", engine.socket) as proxy,
    ):
        yield Yard(tmp_path, engine, proxy)


@pytest.fixture
def made(yard: Yard) -> Yard:
    """One container of uid 1001, on slot 1.2."""
    done = yard.call("create", "a", "pytorch-2.5.0", "--slot", "1.2")
    assert done.returncode == 0, done.stderr
    return yard


def test_a_stop_starts_the_hold_and_a_second_one_does_not_start_it_again(made: Yard) -> None:
    done = made.call("stop", "a", "-t", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{NAME} is stopped\nkeeps GPU 1.2 until it is removed")
    record = made.site.record(NAME)
    assert record is not None
    first = record["stopped_at"]
    again = made.call("stop", "a")
    assert (again.returncode, again.stdout.splitlines()[0]) == (
        0,
        f"{NAME} was already stopped; its hold continues",
    )
    record = made.site.record(NAME)
    assert record is not None
    assert record["stopped_at"] == first
    assert made.site.bookings() == {(NAME, "1.2")}
    assert made.outcomes(NAME)[-1] == ("stop", "success")

    assert made.listed() == []
    (row,) = made.listed("--all")
    assert (row["state"], row["slots"]) == ("exited", ["1.2"])

    started = made.call("start", "a")
    assert (started.returncode, started.stdout) == (0, f"{NAME} is running\n"), started.stderr
    record = made.site.record(NAME)
    assert record is not None
    assert "stopped_at" not in record
    assert made.site.plan()["consistent"]


def test_a_hold_that_is_over_is_not_said_to_go_on(made: Yard) -> None:
    assert made.call("stop", "a", "-t", "0").returncode == 0
    made.site.ctl("release", NAME, check=True)
    assert made.call("stop", "a").stdout == f"{NAME} was already stopped\n"


def test_a_folder_that_became_a_link_is_not_mounted_at_the_next_start(yard: Yard) -> None:
    """Root starts it for uid 1001, whom the folder belongs to; Docker would follow as root."""
    home, secret = yard.site.folder / "home", yard.site.folder / "secret"
    for folder in (home, secret):
        folder.mkdir(mode=0o700)
    os.chown(home, 1001, 1001)
    workspace = home / "workspace"
    workspace.mkdir()
    text = yard.catalogue.read_text(encoding="utf-8")
    mounts = f'mounts = ["{workspace}:/workspace"]'
    yard.catalogue.write_text(text.replace("[container]", f"[container]\n{mounts}"), "utf-8")
    done = yard.call("create", "a", "pytorch-2.5.0", "--slot", "1.2")
    assert done.returncode == 0, done.stderr
    yard.call("stop", "a", "-t", "0")
    workspace.rmdir()
    workspace.symlink_to(secret)
    refused = yard.call("start", "a")
    assert refused.returncode == 1
    assert f"{workspace} is not mounted: it leads to '{secret}'" in refused.stderr
    assert yard.listed() == []
    assert yard.site.bookings() == {(NAME, "1.2")}
    workspace.unlink()
    workspace.mkdir()
    assert yard.call("start", "a").returncode == 0


@pytest.mark.engine_neutral
def test_what_was_created_stays_where_its_answer_cannot_be_written(yard: Yard) -> None:
    env = {key: value for key, value in yard.env().items() if key != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            yard.command("create", "a", "pytorch-2.5.0", "--slot", "1.2"),
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"{NAME} is created (GPU: 1.2), but the output failed" in done.stderr
    assert yard.site.bookings() == {(NAME, "1.2")}
    assert [row["state"] for row in yard.listed()] == ["running"]


def test_a_start_after_the_hold_books_the_slot_again(made: Yard) -> None:
    made.call("stop", "a", "-t", "0")
    made.site.allocator.release(NAME)
    done = made.call("start", "a")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{NAME} is running, with GPU 1.2 booked again\n"
    assert made.site.bookings() == {(NAME, "1.2")}
    assert made.site.plan()["consistent"]


def test_a_start_after_the_hold_says_what_to_do_if_the_slot_is_not_free(made: Yard) -> None:
    made.call("stop", "a", "-t", "0")
    made.site.allocator.release(NAME)
    made.site.allocator.allocate("b._.1002", "bob", "1.2")
    done = made.call("start", "a")
    assert done.returncode == 1
    assert "SLOT_TAKEN (1.2 is held by b._.1002)" in done.stderr
    assert "container-remove a, then container-create a pytorch-2.5.0" in done.stderr
    assert made.site.bookings() == {("b._.1002", "1.2")}
    assert made.engine.client.inspect_container(NAME)["State"]["Status"] == "exited"


def test_a_start_that_fails_gives_back_what_it_booked(made: Yard) -> None:
    made.call("stop", "a", "-t", "0")
    made.site.allocator.release(NAME)
    made.proxy.fault(r"POST /containers/\w+/start", Mode.ERROR, first=1)
    done = made.call("start", "a")
    assert (done.returncode, "in trouble" in done.stderr) == (1, True)
    assert made.site.bookings() == set()


def test_a_running_container_is_removed_by_force_only(made: Yard) -> None:
    done = made.call("remove", "a")
    assert (done.returncode, "container-stop it first" in done.stderr) == (1, True)
    assert made.site.bookings() == {(NAME, "1.2")}
    assert made.call("remove", "a", "--force").returncode == 0
    assert made.left_of(NAME) == {}


def test_what_a_command_does_is_logged_once_where_ds01d_books(
    tmp_path: Path, engine: PrivateEngine
) -> None:
    with public_socket() as path:
        yard = Yard(tmp_path, engine, service={"socket": str(path)})

        def logged() -> list[str]:
            lines = yard.site.operation_lines(NAME)
            return [line[0] for line in lines if line[0] in {"start", "stop", "remove", "release"}]

        with RunningDaemon(yard.site):
            for words in ("create a pytorch-2.5.0", "stop a -t 0", "start a", "remove a --force"):
                command = yard.command(*words.split())
                subprocess.run(command, env=yard.env(), cwd=ROOT, capture_output=True, check=True)
                # ds01d waits 3 s with an event that nobody logs; one after it would end that wait.
                until(lambda: "start" in logged(), what="the start of what was created")
    assert logged() == ["start", "stop", "start", "stop", "remove", "release"]


@pytest.mark.parametrize("what", [r"GET /containers/\w{64}/json", "DELETE /containers/"])
def test_a_booking_stays_where_docker_does_not_say_that_it_is_gone(made: Yard, what: str) -> None:
    made.proxy.fault(what, Mode.RESET)
    done = made.call("remove", "a", "--force")
    assert done.returncode == 1
    assert "its booking stays until ds01d finds it gone" in done.stderr
    assert made.site.bookings() == {(NAME, "1.2")}
    assert made.outcomes(NAME)[-1] == ("remove", "failed")


@pytest.mark.engine_neutral
def test_what_is_not_there_is_not_released(made: Yard) -> None:
    made.engine.remove(NAME)
    done = made.call("remove", "a")
    assert done.returncode == 1
    assert 'no container "a._.1001", though GPU 1.2 is booked for it' in done.stderr
    assert made.site.bookings() == {(NAME, "1.2")}


@pytest.mark.engine_neutral
def test_a_user_touches_only_their_own(made: Yard) -> None:
    made.engine.run("foreign")
    made.engine.run("labelled", labels={"aime.mlc": "1001", "ds01.user": "1001"})
    reasons = {
        NAME: "only that user and root may change it",
        "foreign": "foreign is not a DS01 container: use docker for it",
        "labelled": "labelled belongs to 1001: only that user and root",
    }
    for deed, (name, why) in itertools.product(("start", "stop", "remove"), reasons.items()):
        done = made.call_as(STRANGER, deed, name)
        assert done.returncode == 1, (deed, name)
        assert why in done.stderr
        states = {row["Names"][0]: row["State"] for row in made.engine.client.containers(all=True)}
        assert states == dict.fromkeys((f"/{NAME}", "/foreign", "/labelled"), "running")


@pytest.mark.engine_neutral
def test_root_may_touch_any_and_users_see_their_own(made: Yard) -> None:
    assert made.call_as(STRANGER, "create", NAME, "pytorch-2.5.0").returncode == 1
    assert made.call_as(STRANGER, "list", "--all").stdout == "no containers\n"
    assert [row["name"] for row in made.listed(uid=None)] == [NAME]
    assert made.call("stop", NAME, "-t", "0", uid=None).returncode == 0
    assert made.call("remove", NAME, uid=None).returncode == 0
    assert made.left_of(NAME) == {}


@pytest.mark.engine_neutral
def test_a_dry_run_books_nothing(yard: Yard) -> None:
    before = yard.site.state.read_bytes()
    done = yard.call("create", "a", "pytorch-2.5.0", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"image +{IMAGE} \(present\)", done.stdout)
    assert re.search(r"GPUs +1\.0 \(MIG-", done.stdout)
    assert yard.site.state.read_bytes() == before
    assert yard.left_of(NAME) == {}
    assert yard.outcomes(NAME) == []


def test_without_a_gpu_and_without_a_start(yard: Yard) -> None:
    done = yard.call("create", "a", "--image", IMAGE, "--gpus", "0", "--no-start")
    assert done.returncode == 0, done.stderr
    assert yard.site.bookings() == set()
    there = yard.engine.client.inspect_container(NAME)
    assert there["State"]["Status"] == "created"
    assert there["Config"]["Env"] == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert there["Config"]["Labels"]["aime.mlc.CUSTOM_IMAGE"] == IMAGE
    assert yard.call("start", "a").returncode == 0
    assert yard.call("remove", "a", "-f").stdout == f"{NAME} is removed\n"


@pytest.mark.engine_neutral
def test_docker_that_does_not_answer_is_no_empty_list(yard: Yard) -> None:
    yard.proxy.refuse()
    done = yard.call("list", "--json")
    assert done.returncode == 1
    assert '"containers": null' in done.stdout
    assert "connection refused" in done.stdout


def test_an_image_is_pulled_with_a_bar_on_a_terminal(yard: Yard) -> None:
    with Registry(yard.engine) as registry:
        command = yard.command("create", "a", "--image", registry.image, "--gpus", "0")
        code, drawn = conversation(command, [], yard.env())
    assert code == 0, drawn
    assert "pulling" in drawn
    assert "runs without a GPU" in drawn
    assert yard.engine.client.inspect_container(NAME)["Config"]["Image"] == registry.image


@pytest.mark.engine_neutral
def test_guided_asks_for_everything(yard: Yard) -> None:
    yard.site.allocator.allocate("b._.1002", "bob", "1.0")
    command = yard.command("create", "--guided", "--architecture", "CUDA_ADA")
    code, drawn = conversation(
        command,
        [
            ("Number or name", "pytroch\n"),  # is told what was meant, and asked again
            ("did you mean pytorch", "pytorch\n"),
            ("Name", "not/a/name\n"),
            ("invalid container name", "a\n"),
            ("Slot, several", "1.0\n"),
            ("slot 1.0 is not available", "1.3\n"),
            ("Create it now?", "\n"),
        ],
        yard.env(),
    )
    assert code == 0, drawn
    assert "held by b._.1002" in drawn
    assert "container-create a pytorch --slot 1.3 --architecture CUDA_ADA" in drawn
    assert f"{NAME} runs on GPU 1.3" in drawn
    assert (NAME, "1.3") in yard.site.bookings()


@pytest.mark.engine_neutral
@pytest.mark.parametrize("last", ["n\n", "\x03", "\x04"])
def test_guided_may_be_left(yard: Yard, last: str) -> None:
    command = yard.command("create", "a", "--guided")
    answers = [
        ("Number or name", "pytorch-2.5.0\n"),
        ("Name", "\n"),
        ("Slot, several", "\n"),
        ("Create it now?", last),
    ]
    code, drawn = conversation(command, answers, yard.env())
    assert code == 130, drawn
    assert yard.left_of(NAME) == {}
    assert yard.outcomes(NAME) == []


@pytest.mark.engine_neutral
def test_guided_without_a_terminal_fails_at_once(yard: Yard) -> None:
    before = yard.site.state.read_bytes()
    done = yard.call("create", "--guided")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "container-create: --guided needs a terminal; without one, give all arguments:"
        " container-create NAME FRAMEWORK [--gpus N] [--slot SLOT] [--image IMAGE]\n"
    )
    assert yard.site.state.read_bytes() == before
    assert yard.proxy.calls == []
