"""Compares what commands print with --json with the schemas that are shipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from typing import Any

from tests.support.daemon import ROOT

FOLDER = ROOT / "share" / "schemas"


def check_document(document: Any) -> str:
    """Raise where a document is not as its schema says, or has a key that this lacks; its name."""
    output: str = document["schema"].partition("/")[0]
    # Of the forms that a document may have, that which it is most like.
    problem = import_module("jsonschema.exceptions").best_match(_validator(output)(document))
    assert problem is None, f"{output}: {problem.json_path}: {problem.message:.500}"
    return output


@cache
def _validator(output: str) -> Callable[[Any], Iterable[Any]]:
    try:
        # It has no types of its own.
        validator = import_module("jsonschema").Draft202012Validator
    except ModuleNotFoundError as error:
        raise AssertionError("jsonschema is missing, a library of the tests: make setup") from error
    schema = json.loads((FOLDER / f"{output}.json").read_text(encoding="utf-8"))
    validator.check_schema(schema)
    closed = validator(_close_objects(schema), format_checker=validator.FORMAT_CHECKER)
    return lambda document: list(closed.iter_errors(document))


def _close_objects(part: Any) -> Any:
    """Without this a key that nobody has described would pass: readers have to let it."""
    if isinstance(part, list):
        return [_close_objects(value) for value in part]
    if not isinstance(part, dict):
        return part
    closed = {key: _close_objects(value) for key, value in part.items()}
    return closed | {"additionalProperties": False} if "properties" in closed else closed
