"""Reads the configuration from its file.

Refuses unknown keys, wrong units and impossible combinations, all of them at once, each with file,
line, key and what would be right. Nothing below this module reads a file or an environment. A cron
expression is checked where it is understood: `daemon.timers.validate_cron`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from ds01d import config_text
from ds01d.config import Config
from ds01d.config_checks import find_impossible
from ds01d.config_text import show_value
from ds01d.config_values import ConfigTable, Durations, Seconds
from ds01d.errors import ConfigError

DEFAULT_PATH = Path("/etc/ds01/ds01d.toml")
ENVIRONMENT = "DS01D_CONFIG"
_MAX_PROBLEMS = 20


def find_named_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file that somebody names, by argument or by DS01D_CONFIG; None if nobody does."""
    return path or (Path(environ[ENVIRONMENT]) if environ.get(ENVIRONMENT) else None)


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration in `path`, else in DS01D_CONFIG, else in /etc/ds01/ds01d.toml.

    Only the last may be missing: then everything has its default. Raises ConfigError.
    """
    named = find_named_file(path, environ)
    file = named or DEFAULT_PATH
    try:
        text = config_text.read_config(file)
    except FileNotFoundError as error:
        if named is None:
            return Config()
        source = "" if path else f" (named by {ENVIRONMENT})"
        raise ConfigError(f"{file}{source}: no such file: create it or name another one") from error
    except PermissionError as error:
        raise ConfigError(f"{file}: may not be read: give its reader the right to") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    return parse_config(text, origin=str(file))


def parse_config(text: str, *, origin: str) -> Config:
    """The configuration in `text`. Raises ConfigError with every problem, one a line."""
    try:
        raw = msgspec.toml.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: is not TOML: {error}") from error
    problems: list[tuple[str, str]] = []
    config = _build_config(raw, problems)
    # Only of valid values: a default in the place of an invalid one would be judged instead.
    problems = problems or [*find_impossible(config)]
    if problems:
        lines = [
            f"{origin}{config_text.locate_key(text, key)}: {show_value(key)[1:-1]}: {problem}"
            # Any file may be named with --config, also one that is no configuration at all.
            for key, problem in problems[:_MAX_PROBLEMS]
        ]
        if len(problems) > _MAX_PROBLEMS:
            lines.append(f"{origin}: and {len(problems) - _MAX_PROBLEMS} more")
        raise ConfigError("\n".join(lines))
    return config


def _build_config(raw: Mapping[str, object], problems: list[tuple[str, str]]) -> Config:
    tables: dict[str, Any] = {}
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(Config)}
    for name, table in raw.items():
        if name not in fields:
            problems.append((name, f"unknown table: {config_text.suggest_name(name, fields)}"))
        elif not isinstance(table, dict):
            problems.append((name, f"is a table: write [{name}] and its keys below"))
        else:
            tables[name] = _build_table(fields[name], name, table, problems)
    return Config(**tables)


def _build_table(
    kind: type[ConfigTable],
    name: str,
    raw: Mapping[str, object],
    problems: list[tuple[str, str]],
) -> ConfigTable:
    values: dict[str, Any] = {}
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key, value in raw.items():
        if key not in fields:
            problems.append(
                (f"{name}.{key}", f"unknown key: {config_text.suggest_name(key, fields)}")
            )
            continue
        try:
            values[fields[key].name] = _convert_value(value, fields[key].type)
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            problems.append((f"{name}.{key}", str(error)))
    return kind(**values)


def _convert_value(value: object, kind: Any) -> object:  # noqa: ANN401 - a type as msgspec understands it
    if get_origin(kind) is Literal and value not in get_args(kind):
        allowed = " or ".join(f'"{word}"' for word in get_args(kind))
        raise ValueError(f"{show_value(value)} is not possible: write {allowed}")
    if kind is Durations:  # a kind of tuple to msgspec, which would not ask us
        return Durations.parse(value)
    return msgspec.convert(value, kind, dec_hook=_decode_type)


def _decode_type(kind: type, value: object) -> object:
    """The types that msgspec leaves to us."""
    return Seconds.parse(value) if kind is Seconds else config_text.parse_path(value)
