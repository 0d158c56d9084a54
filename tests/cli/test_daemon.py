"""`ds01d --check` judges a configuration; everything else is the daemon's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from ds01d import bootstrap_daemon
from ds01d.cli.daemon import main
from ds01d.service.view_calls import View


def check(text: str, folder: Path) -> tuple[int, str, str]:
    file = folder / "ds01d.toml"
    file.write_text(text)
    result = CliRunner().invoke(main, ["--config", str(file), "--check"])
    return result.exit_code, result.stdout, result.stderr


def test_a_sound_configuration(tmp_path: Path) -> None:
    code, told, _ = check("", tmp_path)
    assert (code, told) == (0, f"{tmp_path}/ds01d.toml: the configuration is sound\n")


def test_a_risky_one_is_sound_and_says_so(tmp_path: Path) -> None:
    code, told, _ = check('[policy]\ncreation_grace = "30s"\n', tmp_path)
    assert code == 0
    assert told.startswith("risky: policy.creation_grace is under a minute")


@pytest.mark.parametrize(
    "text", ["[docker", '[daemon]\nsweep_interval = "1s"\n', '[daemon]\nsweep_cron = "x"\n']
)
def test_a_wrong_one_is_refused(tmp_path: Path, text: str) -> None:
    code, told, wrong = check(text, tmp_path)
    assert (code, told) == (1, "")
    assert wrong.startswith("ds01d: ")


def test_a_missing_one_is_refused_only_if_it_was_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(tmp_path / "none"), "--check"])
    assert result.exit_code == 1
    assert "no such file" in result.stderr


def test_the_daemon_that_refuses_it_says_so_to_systemd(tmp_path: Path) -> None:
    file = tmp_path / "ds01d.toml"
    file.write_text("[docker", encoding="utf-8")
    result = CliRunner().invoke(main, ["--config", str(file)])
    assert result.exit_code == 78
    assert result.stderr.startswith(f"ds01d: {file}: is not TOML")


def test_without_check_it_runs_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Path | None] = []

    def run(path: Path | None, views: Mapping[str, View]) -> int:
        assert views
        called.append(path)
        return 3

    monkeypatch.setattr(bootstrap_daemon, "run_daemon", run)
    assert CliRunner().invoke(main, ["--config", "/x.toml"]).exit_code == 3
    assert called == [Path("/x.toml")]


def test_a_daemon_imports_no_library_for_the_terminal() -> None:
    """Of the memory that it may take they would be a sixteenth; others may import them later."""
    code = (
        "import sys\n"
        "from ds01d.cli.daemon import import_structlog\n"
        "import_structlog()\n"
        "import ds01d.bootstrap_daemon, ds01d.cli.views, structlog.dev\n"
        "print(sorted({'rich', 'pygments', 'docker', 'prometheus_client'} & sys.modules.keys()))\n"
        "import rich.console\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == "[]\n"
