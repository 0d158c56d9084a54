"""The keys and symbols of the live view, as blocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.cli.output.blocks import Block, Facts, Title


def help_blocks() -> Iterator[Block]:
    """What each key does, and what each sign means."""
    yield Title("keys")
    yield Facts(
        [
            ("arrows, h j k l", "select a row; PgUp, PgDn, Home and End too"),
            ("Enter, click", "all that is published of the selected GPU, user, slot or holder"),
            ("/", "show only rows with these words: a user, container, slot, state, drift, free"),
            ("Esc", "end the filter; go back"),
            ("o, O", "sort by slot, user, end, memory, utilisation, drift; a click on a title too"),
            ("r", "sort the other way round"),
            ("f", "hide free slots, or show them; without room for all they are hidden"),
            ("d", "the daemon and its sources, all drifts and findings, the last operations"),
            ("a", "all hosts of [fleet]: what is free where, and who is where"),
            ("p", "pause: keep what is shown"),
            ("s", "have the daemon sweep now (needs its rights)"),
            ("q, Ctrl-C", "end"),
        ]
    )
    yield Title("symbols")
    yield Facts(
        [
            ("?", "not known: NVML does not report it, or could not be asked"),
            ("!", "a drift or finding is about this holder or slot; Enter shows it"),
            ("(name)", "uses the slot without a booking"),
            ("~user", "a guess whose it is"),
            ("ENDS", "until a stopped container keeps its slot; empty: not ended by time"),
            ("run, exit, …", "Docker's state; used: it is in use and has no holder"),
            ("idle", "it runs, and has used none of its slots for so long"),
            ("mem, util", "memory and utilisation of the device at the last sweep"),
        ]
    )
