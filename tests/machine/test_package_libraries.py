"""The package has what some command imports, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import DATA
from tests.support.package import packages
from tests.support.samples import copy_sample
from tests.support.terminal import conversation

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]

# Does every import of ds01d, also those that wait until something is wanted, in the package's own
# environment; then asks each distribution in there whether one of its files is loaded.
IMPORT_ALL = """
import ast, importlib, json, sys
from importlib.metadata import distributions
from pathlib import Path
import ds01d

imports = set()
for file in Path(ds01d.__file__).parent.rglob("*.py"):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports |= {(node.module, alias.name) for alias in node.names}
missing = []
for module, name in sorted(imports):
    try:
        getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        missing.append(str(error))
importlib.import_module("msgspec").toml.decode("")  # imports its parser, tomli on 3.10, only now
loaded = {
    str(Path(module.__file__).resolve())
    for module in list(sys.modules.values())
    if getattr(module, "__file__", None)
}
unused = [
    distribution.name
    for distribution in distributions()
    if loaded.isdisjoint(str(Path(file.locate()).resolve()) for file in distribution.files)
]
print(json.dumps({"missing": missing, "unused": unused, "path": sys.path}))
"""


@pytest.fixture(scope="module")
def environment(machine_host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the package beside the distribution's interpreter; its virtual environment."""
    root = tmp_path_factory.mktemp("package")
    subprocess.run(["dpkg-deb", "-x", packages().new, root], check=True)
    (root / "usr/bin/python3").symlink_to(Path("/usr/bin/python3").resolve())
    return root / "usr/lib/ds01d/venv"


def test_every_library_is_imported_and_none_is_missing(environment: Path) -> None:
    command = (environment / "bin/python3", "-I", "-B", "-c", IMPORT_ALL)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert [path for path in result["path"] if "-packages" in path] == [
        str(next(environment.glob("lib/python3*/site-packages")))
    ]
    assert result["missing"] == []
    assert result["unused"] == []


def test_the_live_dashboard_runs_on_them(environment: Path, tmp_path: Path) -> None:
    copy_sample(DATA / "states" / "v3-4779337-mig" / "lib", tmp_path / "lib")
    config = tmp_path / "ds01d.toml"
    config.write_text(
        f"""
[docker]
url = "unix://{tmp_path}/none.sock"
[books]
state = "{tmp_path}/lib/gpu-state.json"
metadata = "{tmp_path}/lib/container-metadata"
[daemon]
state_dir = "{tmp_path}/none"
"""
    )
    command = [environment / "bin/python3", "-I", "-B", environment / "bin/ds01-dashboard"]
    env = {"PATH": os.environ["PATH"], "COLUMNS": "140", "LINES": "50"}
    words = [*map(str, command), "--config", str(config)]
    code, drawn = conversation(words, [("train._.1001", "q")], env)
    assert code == 0, drawn
