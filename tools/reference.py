"""Generate manual pages and completions from the commands and the documentation.

    tools/reference.py FOLDER      FOLDER/man/ds01ctl.8 …, FOLDER/completions/ds01ctl …,
                                   FOLDER/zsh/_ds01ctl …, FOLDER/fish/ds01ctl.fish …

The source of a page is man/NAME.SECTION, in mdoc(7). Placeholder lines are replaced: `@options@` by
the options of the command, `@synopsis@` by its usage, `@help@` by the text of --help, `@commands@`
by all of its commands, `@keys@` by the tables of docs/configuration.md. So the pages have exactly
the options, defaults and keys that exist.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Container, Iterator
from importlib.metadata import distribution
from inspect import cleandoc
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from ds01d.cli.ctl.main import main as ds01ctl

ROOT = Path(__file__).parents[1]
_SENTENCE = re.compile(r"(?<=[a-z)\"\]][.!?])\s+(?=[A-Z\"])")


def load_commands() -> dict[str, click.Command]:
    """Every click command of the package, by name."""
    scripts = distribution("ds01d").entry_points.select(group="console_scripts")
    loaded = {script.name: script.load() for script in scripts}
    loaded["ds01ctl"] = ds01ctl  # its entry point is `cli.front`, which imports it
    return {name: entry for name, entry in loaded.items() if isinstance(entry, click.Command)}


# --- manual pages ---------------------------------------------------------------------------------


def render_page(template: Path, command: click.Command | None) -> str:
    lines: list[str] = []
    for line in template.read_text(encoding="utf-8").splitlines():
        match line.strip("@") if line.startswith("@") else None, command:
            case None, _:
                lines.append(line)
            case "date", _:
                lines.append(f".Dd {_date()}")
            case "keys", _:
                lines += _keys((ROOT / "docs/configuration.md").read_text(encoding="utf-8"))
            case "synopsis", click.Command():
                lines += [".Nm", *_synopsis(command)]
            case "help", click.Command():
                lines += _prose(command)
            case "options", click.Command():
                lines += _options(command)
            case "commands", click.Group():
                lines += _commands(command)
            case _:
                raise ValueError(f"{template}: invalid placeholder {line} for this command")
    return "\n".join(lines) + "\n"


def _date() -> str:
    now = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    return f"{time.strftime('%B', now)} {now.tm_mday}, {now.tm_year}"


def _synopsis(command: click.Command) -> Iterator[str]:
    pieces = " ".join(command.collect_usage_pieces(_context(command)))
    for word in re.findall(r"\[[^]]*\](?:\.{3})?|\S+", pieces):
        name = _text(word.strip("[].")).replace("OPTIONS", "OPTION ...")
        yield f".Op Ar {name}{' ...' * word.endswith('...')}" if word[0] == "[" else f".Ar {name}"


def _context(command: click.Command, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, parent=parent, **command.context_settings)


def _prose(command: click.Command) -> Iterator[str]:
    for number, paragraph in enumerate(cleandoc(command.help or "").split("\n\n")):
        if number:
            yield ".Pp"
        yield from _sentences(paragraph)


def _options(command: click.Command, excluded: Container[str] = ()) -> Iterator[str]:
    """A list of the options, without those with the names `excluded`."""
    context = _context(command)
    options = [
        option
        for option in command.get_params(context)
        if isinstance(option, click.Option) and option.name not in excluded
    ]
    records = [record for option in options if (record := option.get_help_record(context))]
    if records:
        yield ".Bl -tag -width Ds"
    for names, text in records:
        yield f".It {' , '.join(map(_flag, names.split(', ')))}"
        yield from _sentences(text) if text else ()
    if records:
        yield ".El"


def _flag(text: str) -> str:
    name, _, value = text.partition(" ")
    return f"Fl {_text(name[1:])}" + (f" Ar {_text(value.removesuffix(' RANGE'))}" if value else "")


def _commands(group: click.Group, before: str = "") -> Iterator[str]:
    """Each command, without the options of the group, which the page lists separately."""
    context = _context(group)
    common = {parameter.name for parameter in group.get_params(context)}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise ValueError(f"no command {name}")
        if isinstance(command, click.Group):
            yield from _commands(command, f"{before}{name} ")
            continue
        yield from (f".Ss {before}{name}", ".Nm", f".Cm {before}{name}")
        yield from _synopsis(command)
        yield ".Pp"
        yield from _prose(command)
        yield from _options(command, common)


def _keys(markdown: str) -> Iterator[str]:
    table = ""
    for line in markdown.splitlines():
        if header := re.match(r"## `\[(\w+)\]`", line):
            if table:
                yield ".El"
            table = header[1]
            yield f".Ss [{table}]"
            yield ".Bl -tag -width Ds"
        elif table and (
            cells := re.match(r"\| `(\w+)` \| `([^`]+)` \| (.+) \| (.+) \| (.+) \|$", line)
        ):
            key, default, unit, meaning, when = cells.groups()
            yield f".It Ic {key} No = Li {_text(default)} Pq {_text(_plain(unit))}"
            yield from _sentences(f"{_plain(meaning)[0].upper()}{_plain(meaning)[1:]}.")
            yield from _sentences(f"Change it when: {_plain(when)}.")
    yield ".El"


def _plain(markdown: str) -> str:
    """Markdown as plain text."""
    return re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", markdown.replace("`", ""))


def _sentences(text: str) -> Iterator[str]:
    """One line per sentence, as mdoc requires; a line that looks like a request is escaped."""
    for sentence in _SENTENCE.split(" ".join(text.split())):
        line = _text(sentence)
        yield rf"\&{line}" if line.startswith((".", "'")) else line


def _text(text: str) -> str:
    """Text that mdoc takes literally, in ASCII: groff's ASCII device lacks other characters."""
    text = text.replace("\\", "\\e").replace("…", "...")
    text = re.sub(r"(?<![\w-])--?(?=\w)", lambda match: match[0].replace("-", r"\-"), text)
    return text.replace('"', "\\(dq")


# --- completions ----------------------------------------------------------------------------------


class _FishComplete(FishComplete):
    """Click's, for words and descriptions with a comma: it would end them there."""

    source_template = FishComplete.source_template.replace(
        'string split "," ', 'string split --max 1 -- "," '
    )


_SHELLS: tuple[tuple[type[ShellComplete], str], ...] = (
    (BashComplete, "completions/{}"),
    (ZshComplete, "zsh/_{}"),
    (_FishComplete, "fish/{}.fish"),
)


def render_completions(name: str, command: click.Command) -> Iterator[tuple[str, str]]:
    """A file for each shell, which calls the command for the candidates: its path, and its text."""
    variable = f"_{name}_COMPLETE".replace("-", "_").upper()
    for shell, path in _SHELLS:
        yield path.format(name), shell(command, {}, name, variable).source()


def main(folder: Path) -> None:
    """Write all pages and completions."""
    programs = load_commands()
    for part in ("man", "completions", "zsh", "fish"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for template in sorted((ROOT / "man").glob("*.[1-8]")):
        text = render_page(template, programs.get(template.stem))
        (folder / "man" / template.name).write_text(text, encoding="utf-8")
    for name, command in programs.items():
        for path, text in render_completions(name, command):
            (folder / path).write_text(text, encoding="utf-8")
    for script in (ROOT / "share/completions").iterdir():
        part = "fish" if script.suffix else "zsh" if script.name.startswith("_") else "completions"
        shutil.copy(script, folder / part)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
