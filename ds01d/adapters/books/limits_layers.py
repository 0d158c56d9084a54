"""A section of the limits' files in which limits are looked up, and its mistakes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ds01d.adapters.books.look_alike_keys import find_look_alikes
from ds01d.adapters.books.strict_yaml import describe_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A section in which a user's limits are looked up; `problem` where it is no mapping.

    `origin`: the path of its file. `alike`: the keys in it that only look like one that is read, by
    that one.
    """

    key: str
    values: Mapping[object, object]
    origin: str = ""
    problem: str = ""
    alike: Mapping[str, str] = field(default_factory=dict)

    def explain_look_alike(self, key: str) -> str:
        """What is wrong if `key` is not there, and only something that looks like it; else ""."""
        written = self.alike.get(key)
        return (
            ""
            if written is None or key in self.values
            else _describe_unread(self.key, written, key)
        )

    def locate(self, key: str) -> str:
        """The file and the whole name of a key in it."""
        return f"{self.origin}: {_place(self.key, key)}"

    def list_unread(self) -> list[str]:
        return [_describe_unread(self.key, written, key) for key, written in self.alike.items()]


class Mistakes:
    """What is to be corrected in the files, a line each, in the order of reading."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def add(self, layer: Layer, key: str, problem: str) -> None:
        """Note what is wrong with a key of a section; nothing where `problem` is ""."""
        if problem:
            self.add_line(f"{layer.origin}: {_place(layer.key, key)}: {problem}")

    def add_unread(self, layer: Layer) -> None:
        """Note the keys of a section that only look like one that is read."""
        for problem in layer.list_unread():
            self.add_line(f"{layer.origin}: {problem}")

    def add_layer(self, layer: Layer) -> None:
        """As `add_unread`, and that a section is none."""
        if layer.problem:
            self.add_line(f"{layer.origin}: {layer.problem}")
        self.add_unread(layer)

    def add_line(self, line: str) -> None:
        self._lines.setdefault(line)

    def list_lines(self) -> tuple[str, ...]:
        return tuple(self._lines)


def parse_layer(raw: object, key: str, readable: tuple[str, ...], origin: str) -> Layer:
    """A section; `readable`: what is read of it."""
    if isinstance(raw, dict):
        names = [name for name in raw if isinstance(name, str)]
        alike = {meant: name for name, meant in find_look_alikes(names, readable).items()}
        return Layer(key=key, values=raw, origin=origin, alike=alike)
    problem = "" if raw is None else f"{key}: expected a mapping, got {describe_value(raw)}"
    return Layer(key=key, values={}, origin=origin, problem=problem)


def parse_section(top: Layer, key: str, readable: tuple[str, ...]) -> Layer:
    """A section of the file; one that is there under a name like it only is a problem."""
    section = parse_layer(top.values.get(key), key, readable, top.origin)
    explain_look_alike = top.explain_look_alike(key)
    return replace(section, problem=explain_look_alike) if explain_look_alike else section


def _describe_unread(section: str, written: str, key: str) -> str:
    return f"{_place(section, written)}: is not read; did you mean {key}?"


def _place(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def list_named(section: Layer) -> dict[str, object]:
    """The entries of a section by name; keys are text (decision 108)."""
    return {key: value for key, value in section.values.items() if isinstance(key, str) and key}
