"""The schemas that are shipped are those of the commands, and no change goes without a version."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ds01d.documents.output_versions import VERSIONS, Output, name_version
from tests.support.schemas import FOLDER, check_document
from tools import schemas
from tools.output_types import COMMANDS, FORMS


def test_the_shipped_schemas_are_those_of_the_commands() -> None:
    made = {output: schemas.build_schema(output) for output in VERSIONS}
    assert schemas.list_changes(FOLDER, made) == {}, "run tools/schemas.py"
    assert {path.stem for path in FOLDER.iterdir()} == set(VERSIONS) == set(FORMS) == set(COMMANDS)


def test_every_version_is_listed_in_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
    missing = [output for output in VERSIONS if f"`{name_version(output)}`" not in page]
    assert missing == []


def with_version(schema: dict[str, Any], version: str) -> dict[str, Any]:
    changed = copy.deepcopy(schema)
    changed["$id"] = changed["$id"].rpartition(":")[0] + f":{version}"
    return changed


def drop_key(schema: dict[str, Any]) -> None:
    del schema["properties"]["held"]


def rename_key(schema: dict[str, Any]) -> None:
    schema["properties"]["booked"] = schema["properties"].pop("held")


def retype_key(schema: dict[str, Any]) -> None:
    schema["properties"]["held"] = {"type": "string"}


def make_optional(schema: dict[str, Any]) -> None:
    schema["required"].remove("held")


def add_null(schema: dict[str, Any]) -> None:
    schema["properties"]["held"] = {"anyOf": [{"type": "number"}, {"type": "null"}]}


def drop_key_below(schema: dict[str, Any]) -> None:
    del schema["$defs"]["WaitingRequest"]["properties"]["since"]


BREAKS = (drop_key, rename_key, retype_key, make_optional, add_null, drop_key_below)


@pytest.mark.parametrize("change", BREAKS)
def test_what_breaks_readers_needs_the_first_number(change: Any) -> None:
    before = with_version(schemas.build_schema("quota"), "1.0")
    for version, is_enough in (("1.0", False), ("1.1", False), ("2.0", True)):
        after = with_version(before, version)
        change(after)
        if is_enough:
            schemas.require_version("quota", before, after)
            continue
        with pytest.raises(schemas.VersionError, match="raise the first number"):
            schemas.require_version("quota", before, after)


def test_what_is_added_needs_the_second_number() -> None:
    before = with_version(schemas.build_schema("quota"), "1.0")
    for version, is_enough in (("1.0", False), ("1.1", True)):
        after = with_version(before, version)
        after["properties"]["more"] = {"type": "string"}
        after["required"].append("more")
        if is_enough:
            schemas.require_version("quota", before, after)
            continue
        with pytest.raises(schemas.VersionError, match="raise the second number"):
            schemas.require_version("quota", before, after)


def test_a_word_that_is_added_needs_the_second_number_and_one_that_goes_the_first() -> None:
    before = schemas.build_schema("pass")
    kinds = before["$defs"]["Kind"]["enum"]
    more, less = with_version(before, "1.1"), with_version(before, "1.1")
    more["$defs"]["Kind"]["enum"] = [*kinds, "new-kind"]
    less["$defs"]["Kind"]["enum"] = kinds[1:]
    schemas.require_version("pass", before, more)
    with pytest.raises(schemas.VersionError, match=f"is never {kinds[0]}: raise the first number"):
        schemas.require_version("pass", before, less)


def test_a_part_may_be_called_something_else() -> None:
    before = with_version(schemas.build_schema("quota"), "1.0")
    text = json.dumps(with_version(before, "1.1")).replace("WaitingRequest", "Request")
    schemas.require_version("quota", before, json.loads(text))


def test_a_change_without_a_step_is_not_written(tmp_path: Path) -> None:
    made: dict[Output, dict[str, Any]] = {
        "quota": with_version(schemas.build_schema("quota"), "1.0")
    }
    for path, text in schemas.list_changes(tmp_path, made).items():
        path.write_text(text)
    made["quota"]["properties"]["more"] = {"type": "string"}
    with pytest.raises(schemas.VersionError):
        schemas.list_changes(tmp_path, made)
    made["quota"] = with_version(made["quota"], "1.1")
    assert [path.name for path in schemas.list_changes(tmp_path, made)] == ["quota.json"]


def test_readers_are_told_to_expect_more() -> None:
    """A schema lets keys pass that a later version adds; the tests do not."""
    assert '"additionalProperties": false' not in (FOLDER / "status.json").read_text()
    document: dict[str, Any] = {"stack": "", "version": None, "architecture": "", "evidence": []}
    assert check_document({"schema": "cuda/1.7", **document}) == "cuda"
    with pytest.raises(AssertionError, match="'more' was unexpected"):
        check_document({"schema": "cuda/1.0", **document, "more": 1})
