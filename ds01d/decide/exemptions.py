"""Containers that count as monitoring and take no GPU by their request. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ds01d.config import ExemptConfig
from ds01d.decide.ownership import parse_uid
from ds01d.model.containers import Container


def is_exempt(container: Container, exempt: ExemptConfig) -> bool:
    """Whether a container counts as monitoring, by configuration, and takes no GPU by its request.

    A DS01 container never does: it is some user's, whatever it is labelled.
    """
    # A user could otherwise hide a container from the books by an exempt label or name.
    if container.labelled or parse_uid(container.name) is not None:
        return False
    image = container.image
    tagless = image.partition("@")[0]
    # A colon before a slash is a registry's port, not a tag.
    head, _, tail = tagless.rpartition(":")
    tagless = head if head and "/" not in tail else tagless
    return (
        any(_has_label(container, pattern) for pattern in exempt.labels)
        or any(fnmatchcase(container.name, pattern) for pattern in exempt.names)
        or any(fnmatchcase(text, p) for p in exempt.images for text in {image, tagless} if text)
    )


def _has_label(container: Container, pattern: str) -> bool:
    key, separator, wanted = pattern.partition("=")
    value = container.labels.get(key)
    if value is None:
        return False
    return not separator or fnmatchcase(value.strip().lower(), wanted.lower())
