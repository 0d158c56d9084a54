"""`ds01ctl quota`: how much of the GPUs a user may have, has, and has left."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.output.blocks import Block, Cell, Facts
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.cli.output.quota_text import format_amount, format_left, format_other_hosts
from ds01d.documents.quota import QuotaDocument
from ds01d.model.primitives import Wall
from ds01d.text import format_count


@click.command()
@click.argument("user", required=False, shell_complete=completion.users)
@json_option
@config_option
@click.pass_obj
def quota(invocation: Invocation, *, user: str | None, as_json: bool) -> int:
    """Show a quota: the limit and where it comes from, what is held, reserved and left.

    USER is oneself by default; others are for root and operators.
    """
    document = invocation.environment.read_quota(invocation.config(), user)
    if as_json:
        show_json("quota", document)
    else:
        now = Wall(time.time())
        show_blocks(_quota_blocks(document, now), now)
    return CONSISTENT


def _quota_blocks(quota: QuotaDocument, now: Wall) -> Iterator[Block]:
    rows: list[tuple[str, Cell]] = [
        ("user", quota.user),
        ("group", quota.group or None),
        ("priority", quota.priority),
        ("limit", format_amount(quota.limit, quota.unit)),
        ("held", format_amount(quota.used, quota.unit)),
        ("reserved", format_amount(quota.reserved, quota.unit)),
    ]
    if quota.other_hosts is not None:
        rows.append(("on other hosts", format_other_hosts(quota, now)))
    rows.append(("left", format_left(quota)))
    if quota.slots_per_container is not None:
        rows.append(("per container", format_count(quota.slots_per_container, "slot")))
    rows.append(("limit from", quota.source or None))
    if quota.ahead is not None:
        ahead = format_count(quota.ahead, "call") if quota.ahead else "nobody"
        rows.append(("waiting ahead", ahead))
    if quota.waiting:
        rows.append(("waiting", format_count(quota.waiting, "call of this user")))
    yield Facts(rows)
