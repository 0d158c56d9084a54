"""The live view with its keys and the mouse, on a terminal in memory: what is on the screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from textual.pilot import Pilot

from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.ctl.status_view import status_warnings
from ds01d.cli.dashboard.hosts import HostPoller
from ds01d.cli.dashboard.live.app import Dashboard
from ds01d.cli.dashboard.live.slot_grid import SlotGrid
from ds01d.cli.dashboard.live.text_screen import TextScreen
from ds01d.cli.dashboard.row_groups import RowOrder
from ds01d.cli.dashboard.view import DashboardState
from ds01d.cli.output.blocks import Sentence
from ds01d.config import Config
from ds01d.errors import Ds01Error
from tests.decide.test_fleet_hosts import make_view
from tests.support.dashboard import NOW, holder, large_state

Steps = Callable[[Dashboard, Pilot[None]], Awaitable[None]]


@dataclass
class Watched:
    """What the live view is told, and what it asked for."""

    state: DashboardState = field(default_factory=large_state)
    failing: str = ""
    looks: int = 0
    sweeps: int = 0
    hosts: HostPoller | None = None

    def look(self) -> DashboardState:
        self.looks += 1
        if self.failing:
            raise Ds01Error(self.failing)
        return self.state

    def warn(self, state: DashboardState) -> list[Sentence]:
        return list(status_warnings(state.status, Config(), state.now))

    def sweep(self) -> str:
        self.sweeps += 1
        return "requested a sweep"

    def app(self) -> Dashboard:
        return Dashboard(
            look=self.look,
            warn=self.warn,
            sweep=self.sweep,
            interval_s=3600.0,
            hosts=self.hosts,
        )


def on_screen(app: Dashboard) -> list[str]:
    """The lines of the terminal, as they are composed for it."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


def text(app: Dashboard) -> str:
    return "\n".join(on_screen(app))


async def until(pilot: Pilot[None], so: Callable[[], bool]) -> None:
    """Wait for the view: a busy machine draws when it comes to it."""
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline, text(pilot.app)  # type: ignore[arg-type]
        await pilot.pause(0.01)


async def drawn(app: Dashboard, pilot: Pilot[None], part: str) -> None:
    await until(pilot, lambda: part in text(app))


async def gone(app: Dashboard, pilot: Pilot[None], part: str) -> None:
    await until(pilot, lambda: part not in text(app))


def watch(watched: Watched, steps: Steps, size: tuple[int, int] = (100, 40)) -> Dashboard:
    """Run the view while somebody does something."""
    app = watched.app()

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await drawn(app, pilot, "Quit")
            await drawn(app, pilot, "status 4 s old")
            await steps(app, pilot)

    asyncio.run(run())
    return app


@pytest.mark.parametrize(("size", "columns"), [((100, 40), 2), ((80, 24), 2), ((200, 60), 2)])
def test_the_keys_and_what_is_wrong_are_on_every_screen(
    size: tuple[int, int], columns: int
) -> None:
    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        lines = on_screen(app)
        assert len(lines) == size[1]
        assert all(len(line) == size[0] for line in lines)
        keys = ("Details", "Filter", "Order", "Free", "Daemon", "Sweep", "Help", "Quit")
        assert all(key in lines[-1] for key in keys)
        assert "status 4 s old" in lines[0]
        assert lines[1].count("CONTAINER") == columns
        assert "! wrong-slot waiting" in text(app)
        assert "! rogue-process finding" in text(app)
        if size != (80, 24):
            assert (
                sum(
                    f" {gpu}.{mig} " in f" {text(app)}" or f"\n{gpu}.{mig} " in text(app)
                    for gpu in range(8)
                    for mig in range(7)
                )
                == 56
            )

    watch(Watched(), steps, size)


def test_a_new_holder_takes_the_place_of_the_one_before() -> None:
    watched = Watched()

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        slots = watched.state.status.slots
        other = msgspec.structs.replace(slots[3], holders=(holder("new._.1009", "zoe"),))
        view = replace(watched.state.status, slots=(*slots[:3], other, *slots[4:]))
        watched.state = replace(watched.state, status=view)
        app.look_again()
        await drawn(app, pilot, "0.3   new._.1009   zoe ")
        await gone(app, pilot, "llm-finetun… dave     run  █···  21%")

    watch(watched, steps)


def test_the_selection_follows_what_it_is_on_and_enter_shows_all_of_it() -> None:
    watched = Watched()

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        grid = app.query_one(SlotGrid)
        await pilot.press("down", "down", "j", "right", "left")
        assert grid.selected == ("slot", "0.2", "notebook-2._.1003")
        await pilot.press("o")
        assert grid.selected == ("slot", "0.2", "notebook-2._.1003")
        view = watched.state.status
        watched.state = replace(watched.state, status=replace(view, slots=view.slots[1:]))
        app.look_again()
        assert grid.selected == ("slot", "0.2", "notebook-2._.1003")
        await pilot.press("enter")
        for part in ("slot 0.2, held by notebook-2._.1003", "carol", "MIG-2", "(14 %)"):
            await drawn(app, pilot, part)
        await drawn(app, pilot, "ds01ctl explain notebook-2._.1003")
        # The page goes on with each look, and says when its subject is gone.
        gone_slot = msgspec.structs.replace(view.slots[2], holders=())
        slots = (*view.slots[:2], gone_slot, *view.slots[3:])
        watched.state = replace(watched.state, status=replace(view, slots=slots))
        app.look_again()
        await drawn(app, pilot, "notebook-2._.1003 does not hold it any more")
        await pilot.press("escape")
        await drawn(app, pilot, "Details")

    watch(watched, steps)


def test_details_of_a_drift_a_gpu_and_a_user() -> None:
    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"notebook-8", "enter", "down", "enter")
        for part in ("WRONG-SLOT", "it runs with 1.4", "in 3 s", "2 s ago"):
            await until(pilot, lambda part=part: part.lower() in text(app).lower())  # type: ignore[misc]
        await pilot.press("escape", "escape", "home", "enter")
        await drawn(app, pilot, "NVIDIA A100-SXM4-80GB")
        await drawn(app, pilot, "GPU-0")
        await pilot.press("escape", "o", "home", "enter")
        await drawn(app, pilot, "user alice")

    watch(Watched(), steps)


@pytest.mark.parametrize("typed", ["carol", "CAROL"])
def test_slash_filters_and_escape_ends_it(typed: str) -> None:
    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *typed, "enter")
        await drawn(app, pilot, f"filter {typed!r}: 8 of 56")
        await gone(app, pilot, "alice")
        assert not app.query_one("#filter").display
        await pilot.press("escape")
        await drawn(app, pilot, "alice")
        await gone(app, pilot, f"filter {typed!r}")

    watch(Watched(), steps)


def test_letters_typed_into_the_filter_are_no_keys() -> None:
    watched = Watched()

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("slash", "s", "q", "d", "p")
        await drawn(app, pilot, "filter 'sqdp': 0 of 56")
        assert app.is_running

    watch(watched, steps)
    assert watched.sweeps == 0


def test_orders_by_key_and_by_a_click_on_a_title() -> None:
    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("o")
        await drawn(app, pilot, "alice 8 slots in 8 containers")
        await pilot.press("o")
        await drawn(app, pilot, "by ends")
        assert app.choice.rows.order is RowOrder.ENDS
        assert on_screen(app)[2].startswith("0.4   eval-4")
        await pilot.press("r")
        await drawn(app, pilot, "by ends, reversed")
        assert on_screen(app)[2].startswith("7.0   resnet50")
        place = on_screen(app)[1].index("MEM")
        await pilot.click("#titles", offset=(place, 0))
        await drawn(app, pilot, "by memory")
        assert "98%" in on_screen(app)[2]
        await pilot.click("#titles", offset=(place, 0))
        await drawn(app, pilot, "by memory, reversed")

    watch(Watched(), steps)


def test_a_click_selects_and_one_on_the_selected_row_opens_it() -> None:
    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.click("#grid", offset=(60, 1))
        assert app.query_one(SlotGrid).selected == ("slot", "4.0", "eval-28._.1001")
        assert not isinstance(app.screen, TextScreen)
        await pilot.click("#grid", offset=(60, 1))
        await drawn(app, pilot, "slot 4.0, held by eval-28._.1001")

    watch(Watched(), steps)


def test_f_hides_free_slots_and_p_keeps_what_is_shown() -> None:
    watched = Watched(state=large_state(free_every=5))

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("f")
        await drawn(app, pilot, "free hidden")
        await gone(app, pilot, "0.0   free")
        await pilot.press("f", "p")
        await drawn(app, pilot, "PAUSED at ")
        looks = watched.looks
        app.look_again()
        assert watched.looks == looks
        await pilot.press("p")
        await gone(app, pilot, "PAUSED")
        assert watched.looks > looks

    watch(watched, steps)


def test_s_has_the_daemon_sweep_and_says_what_came_of_it() -> None:
    watched = Watched()

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("s")
        await drawn(app, pilot, "requested a sweep")
        await pilot.press("escape")
        await gone(app, pilot, "requested a sweep")

    watch(watched, steps)
    assert watched.sweeps == 1


def test_pages_of_the_daemon_and_of_the_keys() -> None:
    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press("d")
        for part in ("DRIFTS AND FINDINGS", "process 4711 of mallory", "last sweep", "pace"):
            await drawn(app, pilot, part)
        await pilot.press("slash", "o")
        assert app.choice.rows.order is RowOrder.SLOT
        await pilot.press("escape", "question_mark")
        await drawn(app, pilot, "not known: NVML does not report it")

    watch(Watched(), steps, (100, 50))


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("ctrl+c", 130)])
def test_keys_that_end_it(key: str, code: int) -> None:
    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await pilot.pause()

    assert (watch(Watched(), steps).return_code or 0) == code


def test_what_cannot_be_looked_at_is_said_and_the_view_stays() -> None:
    watched = Watched()

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        watched.failing = "disk on fire \x1b[31m"
        app.look_again()
        await drawn(app, pilot, "cannot refresh since ")
        await drawn(app, pilot, "disk on fire \\x1b[31m")
        await drawn(app, pilot, "eval-4")
        watched.failing = ""
        app.look_again()
        await gone(app, pilot, "disk on fire")

    watch(watched, steps)


def test_a_daemon_that_ended_is_said_in_two_places() -> None:
    watched = Watched()

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        view = watched.state.status
        ended = StatusView(last=view.last, slots=view.slots, daemon_problem="process 77 has ended")
        watched.state = replace(watched.state, status=ended)
        app.look_again()
        await drawn(app, pilot, "ds01d NOT RUNNING for 4 s")
        await drawn(app, pilot, "ds01d is not running (process 77 has ended)")
        await drawn(app, pilot, "GPU 0 no readings")

    watch(watched, steps)


def test_names_are_text_and_no_markup() -> None:
    watched = Watched()
    view = watched.state.status
    evil = holder("\x1b]0;owned\x07[red]x[/]", "[bold]u")
    slot = msgspec.structs.replace(view.slots[0], holders=(evil,), foreign=("[link=x]y",))
    watched.state = replace(watched.state, status=replace(view, slots=(slot,)), now=NOW)

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await drawn(app, pilot, "\\x1b]0;owned\\x07[red]x[/]")
        await drawn(app, pilot, "[bold]u")
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, TextScreen))
        await drawn(app, pilot, "[link=x]y")
        assert "\x1b" not in text(app)

    watch(watched, steps)


@pytest.mark.parametrize("size", [(20, 8), (1, 1), (38, 10)])
def test_a_terminal_that_is_too_small_ends_nothing(size: tuple[int, int]) -> None:
    app = Watched().app()

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.query_one(SlotGrid).selected is not None)
            await pilot.press("pagedown", "end", "left", "right", "enter")
            await pilot.resize_terminal(120, 40)
            await until(pilot, lambda: "MIG-" in text(app) or "GPU-" in text(app))

    asyncio.run(run())


def test_without_slots_nothing_is_selected() -> None:
    watched = Watched()
    watched.state = replace(
        watched.state, status=StatusView(last=None, slots=(), daemon_problem="no status in /x")
    )
    app = watched.app()

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "ds01d NOT RUNNING" in text(app))
            await pilot.press("down", "pagedown", "end", "right", "enter", "o", "f")
            assert app.query_one(SlotGrid).selected is None

    asyncio.run(run())


def test_all_hosts_are_shown_where_there_are_several() -> None:
    watched = Watched()

    async def steps_alone(app: Dashboard, pilot: Pilot[None]) -> None:
        assert "All hosts" not in on_screen(app)[-1]
        await pilot.press("a")
        await pilot.pause()
        assert not isinstance(app.screen, TextScreen)

    watch(watched, steps_alone)
    watched.hosts = HostPoller(lambda: make_view().hosts)

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await drawn(app, pilot, "All hosts")
        # A view that is paused is one of this host.
        await pilot.press("p", "a")
        await until(pilot, lambda: isinstance(app.screen, TextScreen))

        def is_shown() -> bool:
            app.look_again()
            return "1 host unknown" in text(app)

        await until(pilot, is_shown)
        assert "gpu02" in text(app)
        assert "train._.1001" in text(app)
        await pilot.press("escape")
        await drawn(app, pilot, "Quit")

    watch(watched, steps)
