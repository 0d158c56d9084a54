"""Manual pages and completions: nothing that a command knows is missing, and they work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from ds01d.cli.allocator.main import USAGE
from ds01d.config import Config
from simulation.fake_engine import FakeEngine
from tests.support.daemon import DATA
from tests.support.samples import copy_sample
from tests.support.scripts import ROOT
from tests.support.terminal import TerminalSession
from tools import reference

PROGRAMS = reference.load_commands()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make all of it, as the package does."""
    folder = tmp_path_factory.mktemp("reference")
    program = [sys.executable, str(ROOT / "tools/reference.py"), str(folder)]
    subprocess.run(program, check=True, cwd="/", timeout=60)
    return folder


def shown(page: Path) -> str:
    """A page as `man` shows it, on one line, without what it does for the eye."""
    formatted = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=200", page],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return " ".join(re.sub(r".\x08", "", formatted).split())


def options(
    command: click.Command, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Every option of a command and of all commands below it, with what its help says."""
    context = click.Context(command, parent=parent, **command.context_settings)
    for one in command.get_params(context):
        if isinstance(one, click.Option) and not one.hidden:
            yield from ((name, one.help or "") for name in (*one.opts, *one.secondary_opts))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options(below, context)


def test_every_command_has_a_page_and_a_completion(made: Path) -> None:
    scripts = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())["project"]["scripts"]
    pages = {path.stem for path in (made / "man").iterdir()}
    assert pages == {*scripts, "ds01d.toml"}
    assert {path.name for path in (made / "completions").iterdir()} == {*scripts}
    assert {path.name for path in (made / "zsh").iterdir()} == {f"_{name}" for name in scripts}
    assert {path.name for path in (made / "fish").iterdir()} == {f"{name}.fish" for name in scripts}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_option_is_in_its_page(made: Path, name: str) -> None:
    (page,) = (made / "man").glob(f"{name}.[18]")
    text = shown(page)
    for option, told in options(PROGRAMS[name]):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), option
        assert " ".join(told.split()) in text, option


def test_every_command_of_ds01ctl_is_in_its_page(made: Path) -> None:
    text = shown(made / "man" / "ds01ctl.8")
    group = PROGRAMS["ds01ctl"]
    assert isinstance(group, click.Group)
    for name in group.list_commands(click.Context(group)):
        assert f"ds01ctl {name}" in text


def test_what_the_allocator_knows_is_in_its_page(made: Path) -> None:
    text = shown(made / "man" / "ds01-allocator.1")
    for line in re.findall(r"^  (\S.*?)   +\S", USAGE, re.MULTILINE):
        usage = line.replace("[", "").replace("]", "").lower()
        assert usage in text.replace("[", "").replace("]", ""), usage


def test_every_key_is_in_its_page_with_its_default(made: Path) -> None:
    text = shown(made / "man" / "ds01d.toml.5")
    raw = msgspec.toml.decode((ROOT / "etc/ds01d.toml").read_bytes())
    assert {*raw} == {field.encode_name for field in msgspec.structs.fields(Config)}
    for table, keys in raw.items():
        _, _, below = text.partition(f"[{table}]")
        for key, value in keys.items():
            assert f"{key} = {json.dumps(value)} (" in below, (table, key)


def test_mandoc_warns_of_no_page(made: Path) -> None:
    linted = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *sorted((made / "man").iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.stdout == ""


def man(page: Path, locale: str, width: int = 80) -> subprocess.CompletedProcess[str]:
    """Run `man` on a page, with all of groff's warnings, as a reader in this locale has it."""
    return subprocess.run(
        ["man", "--warnings", "--local-file", page],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": locale, "MANWIDTH": str(width), "MANPAGER": "cat"},
    )


# 66: the narrowest that man fits text to by itself. C: groff's device for ASCII.
@pytest.mark.parametrize("width", [66, 80, 120])
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_man_warns_of_no_page(made: Path, locale: str, width: int) -> None:
    for page in sorted((made / "man").iterdir()):
        assert man(page, locale, width).stderr == "", page


def test_pages_are_ascii(made: Path) -> None:
    """Signs beyond ASCII are lost for readers with LC_ALL=C, with and without a warning."""
    for page in sorted((made / "man").iterdir()):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"[^\x00-\x7f]|\\\[u[0-9A-F]+\]", text) == [], page


def test_an_ellipsis_is_shown_in_every_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs/configuration.md"
    docs.parent.mkdir()
    docs.write_text("## `[allocator]`\n\n| `share` | `2` | `1` … `8` | of … | never |\n")
    template, written = tmp_path / "template", tmp_path / "page.5"
    template.write_text("@date@\n.Dt PAGE 5\n.Os\n.Sh KEYS\n@keys@\n")
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    written.write_text(reference.render_page(template, None))
    for locale in ("C", "C.UTF-8"):
        seen = man(written, locale)
        assert "share = 2 (1 ... 8)" in seen.stdout
        assert seen.stderr == ""


def test_terms_of_a_list_fit_a_line(made: Path) -> None:
    """Two paths are two items: groff 1.23 warns of a term that it has to break."""
    for page in sorted((made / "man").iterdir()):
        for term in re.findall(r"^\.It (.*)$", page.read_text(), re.MULTILINE):
            words = [x for x in term.split() if x not in {"Pa", "Fl", "Ar", "Ic", "No", "Li", "Pq"}]
            assert len(" ".join(words).replace(r"\(dq", '"').replace(" ,", ",")) <= 66, (page, term)


# --- completions ----------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """Books of a sample, a catalogue, and no Docker."""
    copy_sample(DATA / "states" / "v3-4779337-mig" / "lib", tmp_path / "lib")
    shutil.copy(ROOT / "etc/frameworks.toml", tmp_path)
    file = tmp_path / "ds01d.toml"
    file.write_text(
        f"""
[docker]
url = "unix://{tmp_path}/none.sock"
[books]
state = "{tmp_path}/lib/gpu-state.json"
metadata = "{tmp_path}/lib/container-metadata"
[containers]
frameworks = "{tmp_path}/frameworks.toml"
"""
    )
    return file


def offered(made: Path, config: Path, line: str) -> set[str]:
    """What bash offers at the end of a line when Tab is pressed."""
    words = line.split(" ")
    script = """
    source "$1"
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
    read -r _ _ function _ < <(complete -p "$1" | sed 's/-o [a-z]* //g')
    compopt() { :; }
    "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    source = str(made / "completions" / words[0])
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", source, *words],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "DS01D_CONFIG": str(config),
        },
    )
    assert done.stderr == ""
    return {word for word in done.stdout.splitlines() if word}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ds01ctl exp", {"explain"}),
        ("ds01ctl fr", {"freeze"}),
        ("ds01ctl report --by ", {"user", "group", "slot", "day", "booking"}),
        ("ds01ctl quota a", {"alice"}),
        ("ds01ctl reconcile --wa", {"--wait"}),
        ("ds01ctl container st", {"start", "stop"}),
        ("ds01ctl explain train", {"train._.1001", "train2._.1001"}),
        ("ds01ctl explain 1.", {"1.0", "1.1", "1.2", "1.3"}),
        ("ds01ctl allocate alice x --slot 1.", {"1.0", "1.1", "1.2", "1.3"}),
        ("ds01ctl log --user a", {"alice"}),
        ("container-create mine pytorch-2.5", {"pytorch-2.5.0"}),
        ("container-list --js", {"--json"}),
        ("ds01ctl undo ", set()),
        ("container-start tr", set()),
        ("ds01-dashboard --on", {"--once"}),
        ("reconcile-gpu-state --dry", {"--dry-run"}),
        ("ds01d --ch", {"--check"}),
        ("ds01-allocator re", {"release", "release-stale"}),
        ("ds01-allocator --j", {"--json"}),
        ("ds01-allocator release train2", {"train2._.1001"}),
        ("ds01-allocator user-count a", {"alice"}),
    ],
)
def test_tab_offers(made: Path, configured: Path, line: str, expected: set[str]) -> None:
    assert offered(made, configured, line) == expected


def in_fish(made: Path, config: Path, line: str) -> dict[str, str]:
    """What fish offers at the end of a line: each word, and what stands beside it."""
    sources = "".join(f"source {script}\n" for script in sorted((made / "fish").iterdir()))
    done = subprocess.run(
        ["fish", "--no-config", "--command", f"{sources}complete --do-complete $argv[1]", line],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(config.parent),
            "DS01D_CONFIG": str(config),
        },
    )
    assert done.stderr == ""
    offers = (line.partition("\t") for line in done.stdout.splitlines())
    return {word: help_line for word, _, help_line in offers}


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ds01ctl fr", {"freeze": "Stop repairs of everything, or of one container or slot."}),
        ("ds01ctl explain train", {"train._.1001": "", "train2._.1001": ""}),
        ("ds01ctl status -o ", {"wide": "", "name": "", "json": ""}),
        ("ds01-allocator re", {"release": ..., "release-stale": ...}),
        ("ds01-allocator --json release train2", {"train2._.1001": ""}),
        ("ds01-allocator release x ", {}),
    ],
)
def test_fish_offers(made: Path, configured: Path, line: str, expected: dict[str, str]) -> None:
    offers = in_fish(made, configured, line)
    assert offers.keys() == expected.keys()
    assert all(expected[word] in (text, ...) for word, text in offers.items())


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("ds01ctl expl", "ds01ctl explain "),
        ("ds01ctl explain train2", "ds01ctl explain train2._.1001 "),
        ("ds01ctl reconcile --wa", "ds01ctl reconcile --wait "),
        ("ds01-allocator mark", "ds01-allocator mark-stopped "),
        ("ds01-allocator release train2", "ds01-allocator release train2._.1001 "),
    ],
)
def test_zsh_completes(made: Path, configured: Path, typed: str, completed: str) -> None:
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(configured.parent),
        "DS01D_CONFIG": str(configured),
        "TERM": "dumb",  # no codes between the characters
    }
    session = TerminalSession(["zsh", "--no-rcs", "--interactive"], env)
    try:
        session.type(
            f"PS1='ready''> '; fpath=({made}/zsh $fpath); unsetopt zle_bracketed_paste;"
            " autoload -Uz compinit && compinit -u -D; echo loa''ded\n"
        )
        session.expect("loaded")
        session.expect("ready> ")
        session.type(f"{typed}\t")
        session.expect(completed)
    finally:
        session.close()


def test_tab_offers_own_containers_by_their_state(
    made: Path, configured: Path, fake_engine: FakeEngine
) -> None:
    text = configured.read_text().replace(f"{configured.parent}/none.sock", str(fake_engine.socket))
    configured.write_text(text)
    me = os.getuid()
    fake_engine.containers.add(f"running._.{me}", start=True, labels={}, requests=None)
    fake_engine.containers.add(f"resting._.{me}", start=False, labels={}, requests=None)
    fake_engine.containers.add("foreign", start=True, labels={}, requests=None)
    assert offered(made, configured, "container-stop r") == {"running"}
    assert offered(made, configured, "container-start r") == {"resting"}
    assert offered(made, configured, "container-remove ") == {"running", "resting"}
