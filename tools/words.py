"""Measure the language and the size of ds01d/: `make check` runs it.

    tools/words.py               ds01d/ against tools/words.toml
    tools/words.py --figures     only the figures, without a limit; another FOLDER may follow

Each figure has a limit in tools/words.toml. Past it the check fails and lists every place. Limits
may only become stricter; the figure is shown beside its limit, so that it can follow.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[1]
RULES: Final = Path(__file__).with_suffix(".toml")

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """tools/words.toml."""

    never: tuple[str, ...]
    """Words that stand in no name and no message."""
    never_in_messages: tuple[str, ...]
    """Words and phrases that stand in no message."""
    not_alone: tuple[str, ...]
    """Words that are no name by themselves."""
    allowed_messages: frozenset[str]
    """Whole string literals that quote data, such as the name of an event."""
    limits: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file."""

    name: str
    """Dotted, as it is imported."""
    path: Path
    text: str
    tree: ast.Module

    def place(self, line: int, what: str) -> str:
        return f"{self.path}:{line}: {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was counted, and where."""

    name: str
    value: float
    places: tuple[str, ...] = ()
    is_better_higher: bool = False

    def is_past(self, limit: float) -> bool:
        return self.value < limit if self.is_better_higher else self.value > limit


def read_modules(folder: Path) -> list[Module]:
    modules = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        modules.append(Module(name=name, path=path, text=text, tree=ast.parse(text)))
    return modules


def measure(modules: list[Module], rules: Rules) -> Iterator[Figure]:
    """Count everything that a limit can be set for."""
    yield _listed("never-words in names", _never_words_in_names(modules, rules))
    yield _listed("never-words in messages", _never_words_in_messages(modules, rules))
    yield _listed("riddles as names", _riddles(modules, rules))
    yield _listed("class names used twice", _classes_of_one_name(modules))
    yield _listed("modules in an import cycle", _import_cycles(modules))
    yield _listed("modules over 250 lines", _longer_than(modules, 250))
    yield _listed("modules over 400 lines", _longer_than(modules, 400))
    names = [node.name for module in modules for node in _functions(module.tree)]
    single = [name for name in names if "_" not in name.strip("_") and not _is_special(name)]
    yield Figure(name="functions with a name of one word, %", value=_ratio(single, names))
    lines = [line.strip() for module in modules for line in module.text.splitlines()]
    comments = [line for line in lines if line.startswith("#")]
    code = [line for line in lines if line and not line.startswith("#")]
    yield Figure(
        name="comment lines for 100 of code", value=_ratio(comments, code), is_better_higher=True
    )


def _never_words_in_names(modules: list[Module], rules: Rules) -> Iterator[str]:
    for module in modules:
        for line, name in _names(module.tree):
            for word in {part.lower() for part in _PARTS.findall(name)} & {*rules.never}:
                yield module.place(line, f"name {name!r} has the word {word!r}")


def _never_words_in_messages(modules: list[Module], rules: Rules) -> Iterator[str]:
    phrases = "|".join(map(re.escape, (*rules.never, *rules.never_in_messages)))
    pattern = re.compile(rf"\b({phrases})\b", re.IGNORECASE)
    for module in modules:
        for line, text in _messages(module.tree):
            if text not in rules.allowed_messages:
                for match in pattern.finditer(text):
                    yield module.place(line, f"message with {match[0]!r}: {_shorten(text)}")


def _riddles(modules: list[Module], rules: Rules) -> Iterator[str]:
    for module in modules:
        for line, name in _names(module.tree):
            if name.strip("_") in rules.not_alone:
                yield module.place(line, f"name {name!r}")


def _classes_of_one_name(modules: list[Module]) -> Iterator[str]:
    places = defaultdict(list)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module.place(node.lineno, f"class {node.name}"))
    for same in places.values():
        if len(same) > 1:
            yield ", ".join(same)


def _longer_than(modules: list[Module], limit: int) -> Iterator[str]:
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > limit:
            yield f"{module.path}: {lines} lines"


def _import_cycles(modules: list[Module]) -> Iterator[str]:
    """A module is in a cycle where its imports, followed to their end, lead back to it."""
    known = {module.name for module in modules}
    imports = {module.name: {*_imports(module, known)} for module in modules}
    for module in modules:
        reached: set[str] = set()
        ahead = [*imports[module.name]]
        while ahead:
            name = ahead.pop()
            if name not in reached:
                reached.add(name)
                ahead += imports[name]
        if module.name in reached:
            yield module.place(1, f"{module.name} imports itself by way of others")


def _imports(module: Module, modules: set[str]) -> Iterator[str]:
    """Modules of ours that one imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from modules.intersection(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in modules else node.module


def _functions(tree: ast.Module) -> Iterator[_Function]:
    return (node for node in ast.walk(tree) if isinstance(node, _Function))


def _names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that is bound: functions, classes, parameters, variables, fields, aliases."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield node.lineno, name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name
            case _:
                pass


def _messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every string but docstrings; of commands those too, for --help prints them."""
    unseen = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    unseen -= {node.body[0].value for node in _functions(tree) if _is_command(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in unseen:
            yield node.lineno, node.value


def _is_command(function: _Function) -> bool:
    decorators = (ast.unparse(decorator) for decorator in function.decorator_list)
    has_help = isinstance(function.body[0], ast.Expr)
    return has_help and any(re.search(r"\b(command|group)\b", text) for text in decorators)


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _listed(name: str, places: Iterable[str]) -> Figure:
    listed = tuple(places)
    return Figure(name=name, value=len(listed), places=listed)


def _ratio(part: list[str], whole: list[str]) -> float:
    return round(100 * len(part) / max(len(whole), 1), 1)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else f"{line[:69]}…"


def check(figures: Iterable[Figure], limits: dict[str, float], show: Callable[[str], None]) -> bool:
    """Show each figure with its limit, and the places of those past it. True: all are within."""
    passed = True
    for figure in figures:
        limit = limits[figure.name]
        wanted = "at least" if figure.is_better_higher else "at most"
        show(f"{figure.name}: {figure.value:g} ({wanted} {limit:g})")
        if figure.is_past(limit):
            passed = False
            for place in figure.places:
                show(f"  {place}")
    return passed


def main(arguments: list[str]) -> int:
    rules = msgspec.toml.decode(RULES.read_bytes(), type=Rules)
    figures_only = arguments[:1] == ["--figures"]
    folder = Path(arguments[1]) if arguments[1:] else ROOT / "ds01d"
    figures = measure(read_modules(folder), rules)
    if figures_only:
        for figure in figures:
            print(f"{figure.name}: {figure.value:g}", *figure.places, sep="\n  ")
        return 0
    return 0 if check(figures, rules.limits, print) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
