"""Whether a container can open the GPUs of its request, as a document, for `explain`."""

from __future__ import annotations

from ds01d.decide.device_loss import find_access, find_denied, find_minors
from ds01d.decide.index import BooksIndex
from ds01d.documents.values import Section
from ds01d.model.containers import Container
from ds01d.model.device_access import name_node
from ds01d.model.holding import Verdict


def device_section(
    container: Container | None, verdict: Verdict | None, index: BooksIndex
) -> Section | None:
    """What its device cgroup allows; None where it holds nothing that it requested."""
    if container is None or verdict is None:
        return None
    minors = find_minors(container, verdict, index)
    if not minors:
        return None
    nodes = [name_node(minor) for minor in sorted({*minors.values()})]
    if find_access(container, index) is None:
        # With cgroup v2 the rules are a program that nobody can read as rules.
        reason = "the rules of its cgroup cannot be read here; sudo ds01ctl doctor tries"
        return {"needs": nodes, "can_open": None, "unknown": reason}
    denied = {*find_denied(container, verdict, index).values()}
    return {
        "needs": nodes,
        "can_open": not denied,
        "denied": [name_node(minor) for minor in sorted(denied)],
    }
