"""Which engine answers: what tells it from the trusted one, and what only completes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.decide.engine_identity import (
    describe_engine,
    engine_differences,
    is_upgraded,
    same_engine,
)
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import EngineIdentity
from ds01d.reconcile.checkpoint_store import CheckpointStore
from tests.support.build import OTHER, Life
from tests.support.world import IDENTITY

SNAPSHOTTER = "io.containerd.snapshotter.v1"
OVERLAY = replace(IDENTITY, driver="overlay2")


@pytest.mark.parametrize(
    ("answers", "difference"),
    [
        pytest.param(
            replace(OVERLAY, driver="vfs"), "storage driver vfs instead of overlay2", id="a driver"
        ),
        pytest.param(
            replace(OVERLAY, driver="btrfs", image_store=SNAPSHOTTER),
            f"image store {SNAPSHOTTER} instead of the storage driver's own",
            id="an image store",
        ),
        pytest.param(
            replace(OVERLAY, driver=""), "storage driver unknown instead of overlay2", id="none"
        ),
        pytest.param(replace(OVERLAY, id=""), "ID none instead of ENGINE", id="no ID any more"),
        pytest.param(replace(OVERLAY, inode=0, device=0), "another directory", id="root is hidden"),
    ],
)
def test_what_hides_containers_is_another_engine(answers: EngineIdentity, difference: str) -> None:
    assert difference in ", ".join(engine_differences(OVERLAY, answers, same_boot=True))
    assert not same_engine(OVERLAY, answers, same_boot=False)


def test_a_driver_of_the_same_name_in_another_image_store_is_another_engine() -> None:
    trusted = replace(IDENTITY, driver="btrfs")
    answers = replace(trusted, image_store=SNAPSHOTTER)
    assert not same_engine(trusted, answers, same_boot=True)


@pytest.mark.parametrize("driver", ["overlay2", "overlayfs"])
def test_an_identity_without_a_driver_is_completed(driver: str) -> None:
    assert same_engine(IDENTITY, replace(IDENTITY, driver=driver), same_boot=True)
    without_id = replace(IDENTITY, driver=driver, id="")
    assert same_engine(IDENTITY, without_id, same_boot=True)  # Podman's ID was of one answer only
    other = replace(without_id, inode=9)
    assert not same_engine(IDENTITY, other, same_boot=True)


KEY = replace(OVERLAY, id="XB4F:K3QR:IMWF:YW3I:XK6T:ZJAB:XZSN:2XNT:ANTB:PRWE:WAVL:KSX5")
ROOT = replace(OVERLAY, id="ef29dafe-c080-4ee8-a393-b0bc1999084b")  # as 26.1 made it in its place


@pytest.mark.parametrize(
    ("trusted", "answers", "recognized", "upgraded"),
    [
        pytest.param(KEY, ROOT, True, True, id="20.10 to 26.1"),
        pytest.param(KEY, ROOT, False, False, id="without a container that was known"),
        pytest.param(KEY, replace(ROOT, inode=9), True, False, id="in another directory"),
        pytest.param(KEY, replace(ROOT, device=9), True, False, id="on another disk"),
        pytest.param(KEY, replace(ROOT, root_dir="/srv"), True, False, id="elsewhere"),
        pytest.param(KEY, replace(ROOT, driver="vfs"), True, False, id="with another driver"),
        pytest.param(
            KEY, replace(ROOT, image_store=SNAPSHOTTER), True, False, id="with another image store"
        ),
        pytest.param(ROOT, KEY, True, False, id="back"),
        pytest.param(KEY, replace(KEY, id=KEY.id[::-1]), True, False, id="another key"),
        pytest.param(ROOT, replace(ROOT, id=f"{'0' * 8}{ROOT.id[8:]}"), True, False, id="another"),
        pytest.param(KEY, replace(ROOT, id=""), True, False, id="no ID any more"),
    ],
)
def test_an_upgrade_is_told_from_another_engine(
    trusted: EngineIdentity, answers: EngineIdentity, recognized: bool, upgraded: bool
) -> None:
    assert is_upgraded(trusted, answers, same_boot=True, recognized=recognized) is upgraded


@pytest.mark.parametrize("emptied", [False, True])
def test_after_an_upgrade_the_engine_is_trusted_if_it_has_a_container_of_before(
    emptied: bool,
) -> None:
    life = Life()
    life.host.identity = KEY
    life.book("1.0").run("MIG-1-0").run("MIG-1-1", name=OTHER).after(3600.0)
    life.host.identity = ROOT
    if emptied:
        life.host.containers.clear()
    found = memory(life.after(3600.0))
    assert (found.engine, found.untrusted_engine) == ((KEY, ROOT) if emptied else (ROOT, None))


def test_an_engine_in_words() -> None:
    assert describe_engine(IDENTITY) == "ENGINE at /var/lib/docker"
    assert describe_engine(OVERLAY) == "ENGINE at /var/lib/docker (overlay2)"
    podman = replace(IDENTITY, id="", driver="overlay", image_store=SNAPSHOTTER)
    told = f"an engine without a lasting ID at /var/lib/docker (overlay, {SNAPSHOTTER})"
    assert describe_engine(podman) == told


def memory(life: Life) -> Checkpoint:
    found, trouble = CheckpointStore(life.host.world().state_dir).load()
    assert not trouble
    return found


def test_what_another_engine_hides_is_still_known_when_the_trusted_one_comes_back() -> None:
    life = Life().book("1.0").run("MIG-1-0").run("MIG-1-1", name=OTHER).after(3600.0)
    before = memory(life)
    there, life.host.identity = dict(life.host.containers), replace(IDENTITY, id="OTHER")
    life.host.containers.clear()
    hidden = memory(life.after(3600.0))
    assert hidden.untrusted_engine is not None
    assert hidden.identities == before.identities
    assert hidden.resolved == before.resolved
    life.host.containers.update(there)
    life.host.identity = IDENTITY
    back = memory(life.after(0))
    assert back.untrusted_engine is None
    assert back.resolved == before.resolved
