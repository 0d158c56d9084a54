"""Make the JSON schemas of what commands print with --json: share/schemas/*.json.

    python -m tools.schemas              write what has changed
    python -m tools.schemas --check      exit with 1 if something would change

A changed document needs another version in ds01d/documents/output_versions.py, or nothing is
written: the second number where keys or words are added, the first where anything else is changed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ds01d.documents.output_versions import VERSIONS, Output
from tools.output_types import COMMANDS, FORMS, Form

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "share" / "schemas"
_MOMENT = {
    "description": "A moment, in UTC.",
    "type": "string",
    "format": "date-time",
}

_READ_ALREADY = frozenset(
    {"properties", "required", "enum", "description", "title", "$id", "$schema", "$defs", "pattern"}
)

Schema = dict[str, Any]


class VersionError(Exception):
    """A document has changed, and its version has not, or not enough."""


def build_schema(output: Output, forms: Sequence[type] | None = None) -> Schema:
    """The schema of an output, of JSON Schema 2020-12."""
    types = FORMS[output] if forms is None else forms
    references, parts = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    definitions = {name: _clean(part) for name, part in parts.items()}
    for name, part in definitions.items():
        # Structs of ds01d have defaults for the replies of an old one, and all keys are printed.
        if "properties" in part and name not in _list_names(Form):
            part["required"] = [*part["properties"]]
    # Encoded by `show_json` as text, not as the object that it is between ds01d and a command.
    if "DisplayTime" in definitions:
        definitions["DisplayTime"] = _MOMENT
    documents = [definitions.pop(ref["$ref"].rpartition("/")[2]) for ref in references]
    for document in documents:
        _add_version(document, output)
    title = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ds01d:{output}:{VERSIONS[output]}",
        "title": f"{COMMANDS[output]} --json",
    }
    whole = documents[0]
    if len(documents) > 1:
        names = [part.pop("title") for part in documents]
        definitions |= dict(zip(names, documents, strict=True))
        whole = _one_or_both(output, [{"$ref": f"#/$defs/{name}"} for name in names])
    whole.pop("title", None)
    return {**title, **whole, "$defs": dict(sorted(definitions.items()))}


def _list_names(kind: type) -> set[str]:
    """The names of a class and of all below it."""
    return {kind.__name__}.union(*map(_list_names, kind.__subclasses__()))


def _one_or_both(output: Output, documents: list[Schema]) -> Schema:
    """A name may be a slot and a container: then the document has both."""
    both: Schema = {
        "type": "object",
        "properties": {"both": {"type": "array", "items": {"anyOf": documents}}},
        "required": ["both"],
    }
    _add_version(both, output)
    return {"anyOf": [*documents, both]}


def _add_version(document: Schema, output: Output) -> None:
    major = VERSIONS[output].partition(".")[0]
    version = {"type": "string", "pattern": rf"^{output}/{major}\.[0-9]+$"}
    document["properties"] = {"schema": version, **document["properties"]}
    # The parts of `both` have none of their own.
    if output != "explain" or "both" in document["properties"]:
        document["required"] = ["schema", *document.get("required", [])]


def _clean(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Without defaults: commands write every key that is not missing for a reason."""
    if isinstance(schema, dict):
        cleaned = {key: _clean(value) for key, value in schema.items() if key != "default"}
        if "description" in cleaned and isinstance(cleaned["description"], str):
            cleaned["description"] = " ".join(cleaned["description"].split())
        return cleaned
    return [_clean(part) for part in schema] if isinstance(schema, list) else schema


# --- versions -------------------------------------------------------------------------------------


def require_version(name: str, before: Schema, after: Schema) -> None:
    """Raises `VersionError` where a schema has changed without the step that this needs."""
    if before == after:
        return
    old, new = (tuple(map(int, s["$id"].rpartition(":")[2].split("."))) for s in (before, after))
    problem = find_break(_resolve(before), _resolve(after))
    if problem and new[0] <= old[0]:
        raise VersionError(f"{name}: {problem}: raise the first number of its version")
    if new <= old:
        raise VersionError(f"{name} has changed: raise the second number of its version")


def find_break(old: Any, new: Any, path: str = "") -> str:  # noqa: ANN401 - JSON
    """What readers of the old form would not find or understand in the new one; "" for nothing."""
    where = path or "document"
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{where} may be another kind of value"
        return next(filter(None, map(find_break, old, new, [path] * len(old))), "")
    if not isinstance(old, dict) or not isinstance(new, dict):
        return "" if old == new else f"{where} is another one"
    if problem := _find_break_in_keys(old, new, path):
        return problem
    # Words that are added are news: readers take an unknown one for "something else".
    if gone := set(map(str, old.get("enum", []))) - set(map(str, new.get("enum", []))):
        return f"{where} is never {min(gone)}"
    others = (
        _find_other_value(key, old, new, path) for key in sorted({*old, *new} - _READ_ALREADY)
    )
    return next(filter(None, others), "")


def _find_break_in_keys(old: Schema, new: Schema, path: str) -> str:
    for key, part in old.get("properties", {}).items():
        where = f"{path}.{key}".lstrip(".")
        if key not in new.get("properties", {}):
            return f"{where} is gone"
        if key in old.get("required", []) and key not in new.get("required", []):
            return f"{where} may be missing"
        if problem := find_break(part, new["properties"][key], where):
            return problem
    return ""


def _find_other_value(key: str, old: Schema, new: Schema, path: str) -> str:
    if key not in old or key not in new:
        return f"{path or 'document'} has another {key}"
    return find_break(old[key], new[key], path)


def _resolve(schema: Schema) -> Any:  # noqa: ANN401 - JSON
    """The schema with its parts in their places, so that names of parts may change."""
    parts = schema.get("$defs", {})

    def put(part: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(part, dict):
            if "$ref" in part:
                return put(parts[part["$ref"].rpartition("/")[2]])
            return {key: put(value) for key, value in part.items() if key != "$defs"}
        return [put(value) for value in part] if isinstance(part, list) else part

    return put(schema)


def list_changes(folder: Path, outputs: Mapping[Output, Schema]) -> dict[Path, str]:
    """The files that are to be written, with their texts. Raises `VersionError`."""
    changes: dict[Path, str] = {}
    for output, schema in outputs.items():
        path, text = folder / f"{output}.json", json.dumps(schema, indent=2) + "\n"
        if path.exists():
            require_version(output, json.loads(path.read_text(encoding="utf-8")), schema)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            changes[path] = text
    return changes


def main(arguments: Sequence[str]) -> int:
    schemas: dict[Output, Schema] = {output: build_schema(output) for output in VERSIONS}
    try:
        changes = list_changes(FOLDER, schemas)
    except VersionError as error:
        print(f"{error} (ds01d/documents/output_versions.py)", file=sys.stderr)
        return 1
    for path, text in changes.items():
        print(path.relative_to(ROOT))
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(bool(changes) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
