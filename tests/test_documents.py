"""What the pages for engineers name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md", "docs/architecture.md")
PAGES_WITH_LINKS = (*PAGES, *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_the_modules_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w[\w.]*/[\w./]+\.py)`", text))
    folders = (ROOT, ROOT / "ds01d", ROOT / "tests", (ROOT / page).parent)
    missing = {name for name in named if not any((folder / name).exists() for folder in folders)}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES_WITH_LINKS)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)", path.read_text(encoding="utf-8"))
    broken = [
        f"{target}{anchor}"
        for target, anchor in links
        if not _exists(path.parent / target if target else path, anchor.lstrip("#"))
    ]
    assert broken == []


def _exists(target: Path, anchor: str) -> bool:
    if not target.exists():
        return False
    return not anchor or anchor in _anchors(target.read_text(encoding="utf-8"))


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
