"""The page: one HTML document with its style and its script in it, and the policy that fits them.

The browser runs what has one of the two hashes, and nothing that somebody's container name smuggles
in (decision 284).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from ds01d.web.bodies import HTML, Body

_STYLE: Final = "/*STYLE*/"
_SCRIPT: Final = "/*SCRIPT*/"
_SCRIPTS: Final = ("page_elements.js", "page_sections.js", "page_fleet.js", "page.js")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The document, and the value of its header Content-Security-Policy."""

    body: Body
    policy: str


@cache
def build_page() -> Page:
    """Put the page together from the files beside this module."""
    folder = files("ds01d.web")
    style = (folder / "page.css").read_text("utf-8")
    # One script of several files, and a block around it: nothing of it is the window's.
    parts = ((folder / name).read_text("utf-8") for name in _SCRIPTS)
    script = "\n".join(['"use strict";', "{", *parts, "}"])
    document = (folder / "page.html").read_text("utf-8")
    document = document.replace(_STYLE, style).replace(_SCRIPT, script)
    directives = (
        "default-src 'none'",
        f"style-src '{_hash_source(style)}'",
        f"script-src '{_hash_source(script)}'",
        "connect-src 'self'",
        "img-src data:",  # the empty icon, so that nobody asks for /favicon.ico
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Texts of users are set as text; the browser refuses every other way.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return Page(body=Body(document.encode(), HTML), policy="; ".join(directives))


def _hash_source(text: str) -> str:
    """The content of an element as Content Security Policy Level 3 names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
