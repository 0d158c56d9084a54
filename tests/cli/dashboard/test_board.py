"""The live view as lines: what stands where, at each size, and nothing wider than its place."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.dashboard.board import Board, BoardChoice, build_board
from ds01d.cli.dashboard.cells import (
    Pieces,
    draw_bar,
    fit_text,
    format_memory,
    format_share,
    format_short_span,
)
from ds01d.cli.dashboard.row_groups import RowChoice, RowOrder
from ds01d.cli.dashboard.rows import RowKey, SlotRow
from ds01d.cli.dashboard.view import DashboardState
from ds01d.model.books import SlotType
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall
from ds01d.reporting.status import GpuStatus, Holder, SlotStatus
from tests.support.dashboard import GIB, NOW, holder, large_state, large_status


def text_of(pieces: Pieces) -> str:
    return "".join(piece.text for piece in pieces)


def column_texts(board: Board) -> list[list[str]]:
    return [[text_of(placed.pieces) for placed in column] for column in board.columns]


def shown(board: Board) -> str:
    parts = [board.head, board.titles, *board.below]
    lines = [text_of(part) for part in parts]
    return "\n".join([*lines, *(text for column in column_texts(board) for text in column)])


def slot_keys(board: Board) -> list[RowKey]:
    return [row.key for row in board.rows if isinstance(row, SlotRow)]


def by(order: RowOrder, **more: object) -> BoardChoice:
    return BoardChoice(rows=replace(RowChoice(order=order), **more))  # type: ignore[arg-type]


def state_of(*slots: SlotStatus, gpus: tuple[GpuStatus, ...] = ()) -> DashboardState:
    last = msgspec.structs.replace(
        large_status(), slots=slots, gpus=gpus, open_drifts=(), findings=()
    )
    view = StatusView(last=last, slots=slots)
    return DashboardState(status=view, operations=(), log_problem="", now=NOW)


# --- sizes ------------------------------------------------------------------------------------


def test_on_100_by_40_eight_gpus_of_seven_slots_are_on_one_screen() -> None:
    """Each slot has its line with user, state, memory as a bar, and end; below, what is wrong."""
    board = build_board(large_state(), BoardChoice(), 100, 37)
    assert len(board.columns) == 2
    assert board.height + len(board.below) <= 37
    assert len(slot_keys(board)) == 56
    left, right = column_texts(board)
    assert left[0] == "GPU 0 A100-SXM4-80GB 41°C mem 12% util ? 0/7 free"
    assert left[5] == "0.4   eval-4       erin     exit █···  28%  1h45m"
    assert left[10] == "1.1  !notebook-8   bob      run  ██··  56%       "
    assert right[8].startswith("GPU 5 ! XID 79: GPU has fal… mem 69%")
    head = text_of(board.head)
    assert "status 4 s old · readings 12 s old · 0 of 56 slots free · ! 1 drift" in head
    below = [text_of(line) for line in board.below]
    assert below[0].startswith("! wrong-slot waiting, in 3 s  notebook-8._.1002 on 1.1")
    assert below[1].startswith("! rogue-process finding  3.2  process 4711 of mallory")
    assert "stop  erin  eval-4._.1005" in below[2]


def test_on_80_by_24_free_slots_give_way_and_their_number_stays() -> None:
    board = build_board(large_state(free_every=3), BoardChoice(), 80, 21)
    assert board.hides_free
    assert "free hidden" in text_of(board.head)
    assert "19 of 56 slots free" in text_of(board.head)
    assert len(slot_keys(board)) == 37
    assert "3/7 free" in column_texts(board)[0][0]
    # What does not fit scrolls, beside the bar of which rows keep clear.
    assert board.height > 21 - len(board.below)
    assert cell_len(text_of(board.titles)) < 80
    again = build_board(large_state(free_every=3), by(RowOrder.SLOT, hides_free=False), 80, 21)
    assert len(slot_keys(again)) == 56


def test_on_200_by_60_names_are_whole_and_drifts_stand_in_their_rows() -> None:
    board = build_board(large_state(free_every=5), BoardChoice(), 200, 57)
    text = shown(board)
    assert not board.hides_free
    assert "GPU 0 NVIDIA" not in text
    assert "mem 12% ▌···· util ? (10/80G)" in text
    (drifting,) = [line for line in column_texts(board)[0] if line.startswith("1.1")]
    assert "!notebook-8._.1002 " in drifting
    assert "wrong-slot wait" in drifting
    assert "1g.10gb" in drifting
    assert " running " in drifting


def test_a_small_host_has_one_column_and_room_for_words() -> None:
    whole = SlotStatus(
        id=SlotId("0"),
        type=SlotType.PHYSICAL,
        holders=(holder("train._.1001", "alice"),),
        memory_used=20 * GIB,
        memory_total=80 * GIB,
        utilization=57,
    )
    gpu = GpuStatus(index=0, uuid=whole.uuid or "GPU-0", utilization=57)  # type: ignore[arg-type]
    (column,) = column_texts(build_board(state_of(whole, gpus=(gpu,)), BoardChoice(), 100, 37))
    assert "name unknown" in column[0]
    assert "?°C mem ? util 57% ███··" in column[0]
    assert "train._.1001" in column[1]
    assert "20/80G" in column[1]
    assert "57%" in column[1]
    assert "physical_gpu" in column[1]


@given(
    width=st.integers(1, 250),
    height=st.integers(1, 80),
    order=st.sampled_from(RowOrder),
    is_reversed=st.booleans(),
    free_every=st.integers(0, 5),
    name=st.text(max_size=80),
    user=st.text(max_size=40),
)
def test_whatever_names_and_sizes_there_are_each_row_stands_once_in_its_place(
    width: int,
    height: int,
    order: RowOrder,
    is_reversed: bool,
    free_every: int,
    name: str,
    user: str,
) -> None:
    state = large_state(free_every=free_every)
    hostile = Holder(container=ContainerName(name), user=UserName(user), state=user)
    first = msgspec.structs.replace(state.status.slots[0], holders=(hostile,), foreign=(name,))
    slots = (first, *state.status.slots[1:])
    state = replace(state, status=replace(state.status, slots=slots))
    choice = by(order, is_reversed=is_reversed, hides_free=False)
    board = build_board(state, choice, width, height)
    keys = slot_keys(board)
    assert len(keys) == len(set(keys)) == 56
    for column in board.columns:
        for placed in column:
            text = text_of(placed.pieces)
            assert text.isprintable()
            assert cell_len(text) == board.column_width <= width
    for line in (board.head, *board.below):
        assert cell_len(text_of(line)) == width


# --- order and filter -------------------------------------------------------------------------


def test_by_slot_gpu_10_comes_after_gpu_9() -> None:
    slots = [SlotStatus(id=SlotId(str(n)), type=SlotType.PHYSICAL) for n in (10, 9, 0)]
    board = build_board(state_of(*slots), BoardChoice(), 100, 37)
    assert [key.subject for key in slot_keys(board)] == ["0", "9", "10"]


def test_by_user_each_has_a_heading_that_counts() -> None:
    board = build_board(large_state(free_every=5), by(RowOrder.USER), 100, 70)
    first = column_texts(board)[0][0]
    assert first.startswith("alice 6 slots in 6 containers")
    users = [row.user for row in board.rows if not isinstance(row, SlotRow)]  # type: ignore[union-attr]
    assert users == [*sorted(user for user in users if user), ""]


def test_by_end_the_next_comes_first_and_what_has_none_last_also_reversed() -> None:
    def ends(**more: object) -> list[Wall | None]:
        board = build_board(large_state(), by(RowOrder.ENDS, **more), 100, 70)
        rows = [row for row in board.rows if isinstance(row, SlotRow)]
        return [row.holder.until if row.holder else None for row in rows]

    known = [one for one in ends() if one is not None]
    assert known == sorted(known)
    assert len(known) == 6
    assert ends()[:6] == known
    assert ends(is_reversed=True)[:6] == known[::-1]


def test_by_memory_the_fullest_comes_first_and_unknown_is_not_zero() -> None:
    slots = [
        SlotStatus(
            id=SlotId(f"0.{n}"),
            type=SlotType.MIG,
            holders=(holder(f"c{n}", "u"),),
            memory_used=used,
            memory_total=10,
        )
        for n, used in enumerate((3, None, 0, 9))
    ]
    board = build_board(state_of(*slots), by(RowOrder.MEMORY), 60, 30)
    assert [key.subject for key in slot_keys(board)] == ["0.3", "0.0", "0.2", "0.1"]


def test_by_drift_what_failed_or_waits_comes_first() -> None:
    board = build_board(large_state(), by(RowOrder.PROBLEM), 100, 70)
    assert [key.subject for key in slot_keys(board)][:2] == ["1.1", "3.2"]


@pytest.mark.parametrize(
    ("words", "count"),
    [("carol", 8), ("BOB exited", 1), ("1.1", 1), ("wrong-slot", 1), ("rogue", 1), ("nobody", 0)],
)
def test_the_filter_wants_every_word(words: str, count: int) -> None:
    rows = RowChoice(words=tuple(words.lower().split()))
    board = build_board(large_state(), BoardChoice(rows=rows, filter_text=words), 100, 37)
    assert len(slot_keys(board)) == count
    assert f"filter {words!r}: {count} of 56" in text_of(board.head)


def test_who_filters_for_free_slots_gets_them_where_there_is_no_room() -> None:
    choice = BoardChoice(rows=RowChoice(words=("free",)), filter_text="free")
    board = build_board(large_state(free_every=2), choice, 80, 8)
    assert len(slot_keys(board)) == 28


# --- what is not known, and what is wrong -----------------------------------------------------


def test_without_a_daemon_nothing_looks_like_a_reading() -> None:
    slots = tuple(
        msgspec.structs.replace(slot, memory_used=None, memory_total=None)
        for slot in large_status().slots
    )
    view = StatusView(last=large_status(), slots=slots, daemon_problem="process 77 has ended")
    state = DashboardState(status=view, operations=(), log_problem="", now=Wall(NOW + 60))
    board = build_board(state, BoardChoice(), 100, 37)
    assert "ds01d NOT RUNNING for 1 m 4 s" in text_of(board.head)
    assert "drifts ?" in text_of(board.head)
    text = shown(board)
    assert "GPU 0 no readings 0/7 not booked" in text
    assert "%" not in text
    assert "!" not in text


def test_a_late_status_is_marked_in_the_head() -> None:
    state = large_state()
    late = replace(state, status=replace(state.status, late_reason="a pass hangs"))
    assert "status 4 s old, LATE" in text_of(build_board(late, BoardChoice(), 100, 37).head)


def test_a_guess_is_marked_also_where_there_is_no_room() -> None:
    guess = Holder(
        container=ContainerName("c"), user=UserName("alice"), state="running", is_guess=True
    )
    slot = SlotStatus(id=SlotId("0"), type=SlotType.PHYSICAL, holders=(guess,))
    wide = shown(build_board(state_of(slot), BoardChoice(), 100, 37))
    assert "alice (guess)" in wide
    assert "~alic" in shown(build_board(state_of(slot), BoardChoice(), 38, 37))


def test_holders_that_share_a_slot_have_a_row_each_and_others_are_named() -> None:
    slot = SlotStatus(
        id=SlotId("0"),
        type=SlotType.PHYSICAL,
        holders=(holder("a", "alice"), holder("b", "bob")),
        foreign=("web",),
    )
    used = SlotStatus(id=SlotId("1"), type=SlotType.PHYSICAL, foreign=("web",))
    board = build_board(state_of(slot, used), BoardChoice(), 100, 37)
    text = shown(board)
    assert [key.container for key in slot_keys(board)] == ["a", "b", ""]
    assert text.count("also web") == 2
    assert "(web)" in text
    assert "used" in text or "in use" in text


def test_a_holder_that_is_idle_is_shown_as_idle_and_found_by_it() -> None:
    idle = msgspec.structs.replace(holder("a", "alice"), idle_since=Wall(NOW - 12_000))
    slot = SlotStatus(id=SlotId("0"), type=SlotType.PHYSICAL, holders=(idle,))
    assert "idle 3h20m" in shown(build_board(state_of(slot), BoardChoice(), 100, 37))
    choice = BoardChoice(rows=RowChoice(words=("idle",)), filter_text="idle")
    narrow = build_board(state_of(slot), choice, 38, 37)
    assert len(slot_keys(narrow)) == 1
    assert " idle " in column_texts(narrow)[0][1]


def test_problems_without_room_are_counted() -> None:
    findings = large_status().findings * 9
    last = msgspec.structs.replace(large_status(), findings=findings)
    state = replace(large_state(), status=StatusView(last=last, slots=last.slots))
    board = build_board(state, BoardChoice(), 80, 21)
    assert [text_of(line).strip() for line in board.below][-1] == "and 8 more: press d"


# --- cells ------------------------------------------------------------------------------------


@given(st.text(max_size=60), st.integers(0, 40))
def test_a_text_is_as_wide_as_its_cell(text: str, width: int) -> None:
    fitted = fit_text(text, width)
    assert cell_len(fitted) == width
    assert fitted.isprintable()


def test_marks_piled_up_on_a_letter_are_left_out() -> None:
    assert fit_text("a" + "\u0301" * 200 + "b", 4) == "ab  "
    assert fit_text("\x1b[31mred", 12) == "\\x1b[31mred "
    assert fit_text("漢字漢字", 5) == "漢字…"


def test_bars() -> None:
    assert draw_bar(0.0, 4) == "····"
    assert draw_bar(0.001, 4) == "▌···"
    assert draw_bar(0.5, 4) == "██··"
    assert draw_bar(1.0, 4) == "████"
    assert draw_bar(None, 4) == "????"


def test_amounts_and_spans() -> None:
    assert (format_share(None), format_share(0.346)) == ("?", "35%")
    assert format_memory(None, 10 * GIB) == "?/10G"
    assert format_memory(int(3.14 * GIB), 80 * GIB) == "3.1/80G"
    spans = [format_short_span(s) for s in (-3, 0, 59, 61, 3600, 12_000, 90_000, 1_051_200)]
    assert spans == ["0s", "0s", "59s", "1m", "1h", "3h20m", "1d1h", "12d4h"]
    assert format_short_span(12_000, brief=True) == "3h"
