"""`ds01ctl catalogue check` against a real engine and a registry beside it."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from ds01d.adapters.docker import images
from ds01d.cli.base.context import host_environment
from ds01d.cli.ctl.main import main as ds01ctl
from simulation.engine import IMAGE, PrivateEngine
from tests.support.containers import Registry, Yard

pytestmark = pytest.mark.docker


def check(yard: Yard, *references: str) -> tuple[int, list[dict[str, object]]]:
    yard.catalogue.write_text(
        "".join(
            f'[[image]]\nframework = "f{n}"\nimage = "{reference}"\n'
            for n, reference in enumerate(references)
        ),
        encoding="utf-8",
    )
    done = CliRunner().invoke(
        ds01ctl, ["--config", str(yard.site.config), "catalogue", "check", "--json"],
        obj=host_environment(),
    )  # fmt: skip
    return done.exit_code, json.loads(done.stdout)["images"]


def test_each_image_is_asked_for(
    tmp_path: Path, engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard = Yard(tmp_path, engine)
    with Registry(engine) as registry:
        name = registry.image.rpartition(":")[0]
        code, (image,) = check(yard, registry.image)
        assert (code, image["verdict"], image["present"]) == (0, "ok", False)
        assert image["digest"] == registry.digest

        code, (image,) = check(yard, f"{name}:1@{registry.digest}")
        assert (code, image["verdict"]) == (0, "ok"), image

        code, (present, missing) = check(yard, IMAGE, f"{name}:2")
        assert (code, present["verdict"], missing["verdict"]) == (2, "ok", "wrong")

        other = "sha256:" + "0" * 64
        code, (image,) = check(yard, f"{name}:1@{other}")
        assert (code, image["verdict"]) == (2, "wrong")
        assert f"the tag is now {registry.digest}" in str(image["remarks"])

    # The registry is gone: what is here can be used, and of the others nothing is known.
    code, found = check(yard, registry.image, f"{name}:2", IMAGE)
    assert code == 1
    assert [image["verdict"] for image in found] == ["unknown", "unknown", "ok"]
    assert "connection refused" in str(found[0]["remarks"])

    # A registry that hangs costs one wait, however many images it has.
    monkeypatch.setattr(images, "_REGISTRY_S", 1.0)
    yard.site.configure(docker={"timeout": "1s"})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        code, found = check(yard, f"{host}/a:1", f"{host}/b:1", f"{host}/c:1")
    assert (code, {image["verdict"] for image in found}) == (1, {"unknown"})
    assert "timed out after 1 s" in str(found[0]["remarks"])


@pytest.mark.parametrize(
    ("registry", "limits", "reason"),
    [
        ("hangs", {"pull_idle": "2s"}, "no progress for 2 s"),
        # containerd does not try again.
        ("cuts", {"pull_timeout": "3s"}, "not complete after 3 s|unexpected EOF"),
    ],
)
def test_a_pull_ends_in_time(
    tmp_path: Path, engine: PrivateEngine, registry: str, limits: dict[str, str], reason: str
) -> None:
    """Docker tries a download again and again, and says so each second."""
    yard = Yard(tmp_path, engine, pulls=limits)
    with Registry(engine, **{registry: True}) as source:
        done = yard.call("create", "a", source.image, "--cpu-only")
    assert done.returncode == 1
    assert re.search(reason, done.stderr)
    assert done.stderr.endswith("nothing is left of it\n")
    assert yard.left_of("a._.1001") == {}
    assert not engine.client.images(name=source.image)
