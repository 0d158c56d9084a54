"""The commands of a page for administrators, as somebody types them who follows it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.daemon import ROOT

_HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_WAY_BACK = re.compile(r"^And back\b", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The code blocks below a heading: those of the way there, and those behind "And back"."""

    title: str
    there: tuple[str, ...]
    back: tuple[str, ...]


def read_steps(page: str, part: str) -> list[Step]:
    """The steps of a part of a page (its `##`), by the headings below it, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = [*_HEADING.finditer(text)]
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    steps, in_part = [], False
    for heading, end in zip(headings, ends, strict=True):
        if heading[1] == "##":
            in_part = heading[2] == part
        elif in_part:
            steps.append(_read_step(heading[2], text[heading.end() : end]))
    return steps


def _read_step(title: str, text: str) -> Step:
    back = _WAY_BACK.search(text)
    parts = (text, "") if back is None else (text[: back.start()], text[back.start() :])
    there, way_back = (tuple(_BLOCK.findall(part)) for part in parts)
    return Step(title=title, there=there, back=way_back)
