"""`ds01ctl cuda`: the driver's word, packages, another host's list, and every error in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ds01d.cli.ctl.main import main as ds01ctl
from simulation.nvml import prod4
from tests.support.fixtures import NvmlWorld
from tests.support.schemas import check_document


class Person:
    """Somebody on a host with these packages, and with NVML or without."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env: dict[str, str | None] = {"PATH": str(folder / "bin")}
        self.source = "none"
        self.install()

    def install(self, *packages: str) -> None:
        """Replace dpkg-query by one that knows these."""
        rows = "".join(f"installed\\t{name}\\t{v}\\n" for name, v in map(str.split, packages))
        program = self.folder / "bin" / "dpkg-query"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\nprintf '{rows}'\n")
        program.chmod(0o755)

    def call(self, *words: str, given: str | None = None) -> Result:
        config = self.folder / "ds01d.toml"
        config.write_text(f'[gpu]\nsource = "{self.source}"\n')
        command = ["--config", str(config), "cuda", *words]
        return CliRunner().invoke(ds01ctl, command, env=self.env, input=given)


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def test_packages_tell_it(person: Person) -> None:
    person.install("cuda-keyring 1.1-1", "libcudnn8 8.9.7.29-1+cuda12.2")
    result = person.call("--json")
    assert check_document(json.loads(result.stdout)) == "cuda"
    assert json.loads(result.stdout) == {
        "schema": "cuda/1.0",
        "stack": "cuda",
        "version": "12.2",
        "architecture": "CUDA_ADA",
        "evidence": ["package libcudnn8 8.9.7.29-1+cuda12.2: CUDA 12.2"],
    }
    assert (result.exit_code, result.stderr) == (0, "")
    assert person.call().stdout == (
        "stack         CUDA\n"
        "version       12.2\n"
        "architecture  CUDA_ADA\n"
        "evidence      package libcudnn8 8.9.7.29-1+cuda12.2: CUDA 12.2\n"
    )


def test_the_driver_tells_it_first(person: Person, nvml_world: NvmlWorld) -> None:
    nvml_world.set(dataclasses.replace(prod4(), cuda=12080))
    person.source = "nvml"
    person.env = {**nvml_world.env, **person.env}
    person.install("cuda-toolkit-12-4 12.4.1-1")
    told = json.loads(person.call("--json").stdout)
    assert (told["version"], told["architecture"]) == ("12.8", "CUDA_BLACKWELL")
    assert told["evidence"] == [
        "NVML: the driver 535.183.01 runs CUDA up to 12.8",
        "package cuda-toolkit-12-4 12.4.1-1: CUDA 12.4",
    ]


def test_where_nvml_fails_packages_tell_it(person: Person, nvml_world: NvmlWorld) -> None:
    nvml_world.set(prod4().with_fault("nvmlInit", 9))
    person.source = "nvml"
    person.env = {**nvml_world.env, **person.env}
    person.install("cuda-toolkit-12-4 12.4.1-1")
    assert json.loads(person.call("--json").stdout)["version"] == "12.4"
    person.install()
    result = person.call("--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "version from: NVML: Driver Not Loaded (nvmlInit)" in result.stderr
    assert "0 installed packages, none of CUDA or ROCm" in result.stderr


@pytest.mark.parametrize(
    "package", ["cuda-drivers-535 535.1", "nvidia-driver-535 535.1", "cuda-keyring 1.1-1"]
)
def test_what_tells_nothing_is_named(person: Person, package: str) -> None:
    person.install("bash 5.2", package)
    result = person.call()
    assert result.exit_code == 1
    assert result.stderr == (
        "ds01ctl: cannot determine a CUDA or ROCm version from:"
        ' NVML is not used (gpu.source = "none");'
        f" 2 installed packages, of which {package} determine no version\n"
    )


def test_a_host_without_dpkg_says_so(person: Person) -> None:
    (person.folder / "bin" / "dpkg-query").unlink()
    result = person.call()
    assert result.exit_code == 1
    assert "dpkg-query cannot be run: No such file or directory" in result.stderr
    assert result.stderr.count("\n") == 1


def test_another_host_is_asked_about_by_its_list(person: Person, nvml_world: NvmlWorld) -> None:
    person.source = "nvml"
    person.env = {**nvml_world.env, **person.env}
    listed = person.folder / "packages"
    listed.write_text("rocm-dev\t6.3.3.60303-74\nhipify-cuda\t1.0\n")
    told = json.loads(person.call("--packages", str(listed), "--json").stdout)
    assert (told["stack"], told["version"], told["architecture"]) == ("rocm", "6.3.3", "ROCM6")
    assert nvml_world.sessions().opened == 0
    told = json.loads(person.call("--packages", "-", "--json", given="cuda-12-10\t1\n").stdout)
    assert told["version"] == "12.10"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 packages in"),
        ("cuda-keyring\t1.1-1\n", "of which cuda-keyring 1.1-1 determine no version"),
        (
            "Listing... Done\ncuda-12-3/now 12.3 amd64\n",
            "line 1: 'Listing... Done' is not a package",
        ),
        ("\x1b[31m\n", "line 1: '\\x1b[31m' is not a package"),
    ],
)
def test_a_list_that_tells_nothing(person: Person, text: str, words: str) -> None:
    listed = person.folder / "packages"
    listed.write_text(text)
    result = person.call("--packages", str(listed))
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_a_list_that_is_not_there(person: Person) -> None:
    result = person.call("--packages", str(person.folder / "none"))
    assert result.exit_code == 1
    assert result.stderr.startswith("ds01ctl: ")
    assert "No such file or directory" in result.stderr
