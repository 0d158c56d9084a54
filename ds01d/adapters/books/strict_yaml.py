"""YAML, read strictly: plain data only, duplicate keys are marked, bombs refused.

Keys are always text, and a number or a date keeps the text that it was written as: a login `012345`
is not 5349 (https://yaml.org/type/int.html). Knows nothing of what the data means.
"""

from __future__ import annotations

import reprlib
from datetime import date
from typing import Any

import yaml

from ds01d.errors import Malformed

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

# PyYAML recurses for each level; and aliases of aliases make a small file a value that fits no
# memory.
_MAX_DEPTH = 50
_MAX_ALIASES = 1000
_MAX_MERGED = 10_000
_DUPLICATE_TAG = "!ds01d-twice"
_MERGE = "tag:yaml.org,2002:merge"
_STR = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
# Decision 108: to YAML 1.1 the login "on" is true, and "0123" a number.
_READ_AS_SOMETHING_ELSE = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "null", "timestamp", "value")
)


class DuplicateKey:
    """The value of a duplicate key: it is ambiguous which value counts."""

    def __repr__(self) -> str:
        return "a duplicate key"


class WrittenInt(int):
    """An integer; `text` is what the file has."""

    text: str


class WrittenFloat(float):
    """A fraction; `text` is what the file has."""

    text: str


class WrittenDate(str):
    """A date or a time, as the file has it; `value` is what it means."""

    __slots__ = ("value",)
    value: date


def text_of(value: object) -> str | None:
    """A scalar as it stands in the file; None for what is no text, number or date."""
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    return value if isinstance(value, str) else None


_short_repr = reprlib.Repr()
_short_repr.maxlevel, _short_repr.maxlist, _short_repr.maxdict, _short_repr.maxstring = 2, 4, 4, 50


def describe_value(value: object) -> str:
    """What stands there, in a few words: aliases can nest so that all of it fits no memory."""
    return _short_repr.repr(value)[:60]


class _Loader(_SafeLoader):
    """PyYAML's SafeLoader, with merge keys as YAML's specification has them, and an end to them.

    https://yaml.org/type/merge.html: a mapping's own keys win, then earlier ones in a list over
    later ones. PyYAML 6.0.3 and 6.0.4 order the pairs of such a list differently, so it is not
    asked: the pairs that reach it have no key twice.
    """

    _merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace the merge keys by what they bring along."""
        own_keys = {_key_identity(key) for key, _ in node.value if key.tag != _MERGE}
        merged: dict[object, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for name, pair in self._merge_sources(value).items():
                    merged[name] = _mark_duplicate(pair[0]) if name in merged else pair
        pairs = [pair for pair in node.value if pair[0].tag != _MERGE]
        node.value = [pair for name, pair in merged.items() if name not in own_keys] + pairs
        super().flatten_mapping(node)

    def _merge_sources(self, value: yaml.Node) -> dict[object, tuple[yaml.Node, yaml.Node]]:
        """The pairs that one merge key brings along, by the identity of their keys."""
        pairs: dict[object, tuple[yaml.Node, yaml.Node]] = {}
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(source, yaml.MappingNode):
                line = value.start_mark.line + 1
                raise yaml.YAMLError(
                    f"expected a mapping or a list of them to merge in line {line}"
                )
            self.flatten_mapping(source)
            # Merges of merges grow exponentially, far below the limit of aliases.
            self._merged += len(source.value)
            if self._merged > _MAX_MERGED:
                raise yaml.YAMLError(f"more than {_MAX_MERGED} keys are merged")
            for pair in source.value:
                pairs.setdefault(_key_identity(pair[0]), pair)
        return pairs


def _key_identity(key: yaml.Node) -> object:
    """What makes two keys of a mapping the same one."""
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _mark_duplicate(key: yaml.Node) -> tuple[yaml.Node, yaml.Node]:
    return key, yaml.ScalarNode(_DUPLICATE_TAG, "")


def _construct_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """Python can neither print nor compare at leisure what has thousands of digits."""
    number = WrittenInt(loader.construct_yaml_int(node))
    if abs(number) >= 1 << 63:
        raise yaml.YAMLError(f"a number with too many digits in line {node.start_mark.line + 1}")
    number.text = node.value
    return number


def _construct_fraction(loader: _Loader, node: yaml.ScalarNode) -> float:
    number = WrittenFloat(loader.construct_yaml_float(node))
    number.text = node.value
    return number


def _construct_date(loader: _Loader, node: yaml.ScalarNode) -> str:
    written = WrittenDate(node.value)
    written.value = loader.construct_yaml_timestamp(node)
    return written


# For this loader alone: PyYAML copies the table of its base at the first addition.
_Loader.add_constructor(_DUPLICATE_TAG, lambda _loader, _node: DuplicateKey())
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_fraction)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _construct_date)


def read_yaml(data: bytes, origin: str) -> Any:  # noqa: ANN401 - YAML may hold anything
    """The first document's data; raises `Malformed`, naming file and line."""
    try:
        # Editors of other systems begin a file with a byte order mark.
        text = data.decode("utf-8-sig")
        # Before anything is built: a bomb costs its memory in the building.
        _refuse_bombs(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _prepare_tree(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed(f"{origin}: invalid YAML: {' '.join(str(error).split())}") from error


def _refuse_bombs(text: str) -> None:
    """Look at the events first: nothing that follows has to be ready for any depth."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        if depth > _MAX_DEPTH or aliases > _MAX_ALIASES:
            raise yaml.YAMLError(f"deeper than {_MAX_DEPTH} levels, or more than 1000 aliases")


def _prepare_tree(root: yaml.Node) -> None:
    """Make all keys text, and replace the value of duplicate keys by `DuplicateKey`."""
    # decision 108: a login is the text in the file, not what YAML 1.1 makes of it.
    pending = [root]
    visited = set()
    while pending:
        node = pending.pop()
        # Aliases make a graph of the tree, possibly with a cycle.
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            node.value = [_read_null_as_text(item) for item in node.value]
            pending.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            _prepare_keys(node)
            pending.extend(value for _, value in node.value)


def _prepare_keys(mapping: yaml.MappingNode) -> None:
    pairs: dict[object, tuple[yaml.Node, yaml.Node]] = {}
    for written, value in mapping.value:
        key = _as_text(written) if written.tag in _READ_AS_SOMETHING_ELSE else written
        name = id(key) if key.tag == _MERGE else _key_identity(key)
        pairs[name] = _mark_duplicate(key) if name in pairs else (key, value)
    mapping.value = list(pairs.values())


def _read_null_as_text(item: yaml.Node) -> yaml.Node:
    """An item of a list; the word "null" there is a word, nothing at all is not."""
    is_word = isinstance(item, yaml.ScalarNode) and item.value not in {"", "~"}
    return _as_text(item) if is_word and item.tag == _NULL else item


def _as_text(node: yaml.Node) -> yaml.Node:
    """A copy: an alias may stand for the same node where a number is meant."""
    if not isinstance(node, yaml.ScalarNode):
        return node
    return yaml.ScalarNode(_STR, node.value, node.start_mark, node.end_mark)
