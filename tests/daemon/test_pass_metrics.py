"""What passes leave in the metrics, and that metrics which fail leave the daemon alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ds01d import config as configuration
from ds01d.daemon.dirty_set import Counters, Work
from ds01d.daemon.pass_metrics import PassMetrics
from ds01d.model.primitives import ContainerName
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from ds01d.reporting.metrics import Metrics
from tests.support.books import until
from tests.support.build import NAME, Life, config
from tests.support.metrics import value

SWEEP = Work(everything=True, names=frozenset())
ONE = Work(everything=False, names=frozenset({ContainerName(NAME)}))


@dataclass
class Events:
    """Docker's events, as the engine's adapter counts them."""

    received: int = 0
    lost: int = 0
    reconnects: int = 0
    stream_problem: str = ""


class Watched:
    """A host, a repairing daemon on it, and its meter."""

    def __init__(self, folder: Path) -> None:
        self.events = Events()
        self.queue = Counters(depth=0, adds=0, retries=0, running_s=0.0)
        self.textfile = folder / "ds01d.prom"
        self.settings = configuration.MetricsConfig(textfile=str(self.textfile))
        self.life = Life(config())
        self.meter = PassMetrics(lambda: self.queue, lambda: self.life.host.boot)
        self.begin()

    def begin(self) -> None:
        whole = configuration.Config(metrics=self.settings)
        self.meter.apply_config(whole, self.events)

    def sweep(self) -> Report:
        report = self.life.sweep()
        self.meter.count_pass(SWEEP, report)
        return report

    def after(self, seconds: float) -> None:
        """Let time pass, with a sweep each minute."""
        while seconds > 0:
            step = min(60.0, seconds)
            self.life.host.pass_time(step)
            seconds -= step
            self.sweep()

    def told(self, name: str, **labels: str) -> float:
        return value(self.meter.render(), name, **labels)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    one = Watched(tmp_path)
    yield one
    one.meter.close()


def test_a_drift_is_shown_with_its_age_until_it_is_settled(watched: Watched) -> None:
    watched.life.book("1.0")
    watched.life.host.pass_time(100_000)
    watched.sweep()
    assert watched.told("drifts", kind="stale-allocation", verdict="held") == 1
    assert watched.told("drifts_held", gate="proof") == 1
    watched.after(60)
    watched.life.host.pass_time(7)
    assert watched.told("drift_oldest_age_seconds", kind="stale-allocation") == 67
    assert watched.told("reconcile_total", scope="sweep", result="requeue_after") == 2
    watched.after(180)
    assert watched.told("drifts", kind="stale-allocation", verdict="held") == 0
    assert watched.told("drift_oldest_age_seconds", kind="stale-allocation") == 0
    assert watched.told("actions_total", action="release", result="done") == 1
    assert watched.told("drifts_settled_total", kind="stale-allocation", result="done") == 1
    assert watched.told("releases_total", paced="yes") == 1
    assert watched.told("releases_total", paced="no") == 0


def test_a_release_that_an_event_proved_is_not_paced(watched: Watched) -> None:
    watched.life.book("1.0").run("MIG-1-0")
    watched.sweep()
    watched.life.remove(told=True)
    watched.after(120)
    assert watched.told("releases_total", paced="no") == 1


def test_a_pass_over_names_leaves_the_drifts_of_others(watched: Watched) -> None:
    watched.life.book("1.0").book("1.1", name="other._.1002")
    watched.life.host.pass_time(100_000)
    watched.sweep()
    assert watched.told("drifts", kind="stale-allocation", verdict="held") == 2
    other = frozenset({ContainerName("other._.1002")})
    host = watched.life.host
    host.containers.update(Life().run("MIG-1-1", name="other._.1002").host.containers)
    report = Reconciler(host.world(), watched.life.config).run(other)
    watched.meter.count_pass(Work(everything=False, names=other), report)
    assert watched.told("drifts", kind="stale-allocation", verdict="held") == 1
    assert watched.told("reconcile_total", scope="names", result="success") == 1


def test_a_settling_that_fails_is_an_error(watched: Watched) -> None:
    watched.life.book("1.0")
    watched.life.host.pass_time(100_000)
    watched.life.host.unwritable.add("state")
    watched.after(300)
    assert watched.told("actions_total", action="release", result="failed") >= 1
    assert watched.told("reconcile_errors_total", scope="sweep") >= 1
    assert watched.told("drifts", kind="stale-allocation", verdict="failed") == 1
    assert watched.told("releases_total", paced="yes") == 0


def test_a_pass_that_fails_is_an_error_and_an_unexpected_one_a_panic(watched: Watched) -> None:
    watched.meter.count_failed_pass(SWEEP, 1.0, panic=False)
    watched.meter.count_failed_pass(ONE, 1.0, panic=True)
    assert watched.told("reconcile_errors_total", scope="sweep") == 1
    assert watched.told("reconcile_panics_total", scope="sweep") == 0
    assert watched.told("reconcile_panics_total", scope="names") == 1
    assert watched.told("reconcile_total", scope="names", result="error") == 1


def test_observing_only_counts_no_action(watched: Watched) -> None:
    watched.life.config = config(mode="observe")
    watched.life.book("1.0")
    watched.life.host.pass_time(100_000)
    watched.after(300)
    assert watched.told("drifts", kind="stale-allocation", verdict="due") == 1
    assert watched.told("actions_total", action="release", result="done") == 0


def test_queue_and_events_are_read_when_somebody_asks(watched: Watched) -> None:
    watched.queue = Counters(depth=3, adds=10, retries=2, running_s=1.5)
    watched.events = Events(received=9, lost=1, reconnects=2, stream_problem="broken")
    watched.begin()
    assert watched.told("workqueue_depth") == 3
    assert watched.told("workqueue_adds_total") == 10
    assert watched.told("workqueue_retries_total") == 2
    assert watched.told("workqueue_longest_running_processor_seconds") == 1.5
    assert watched.told("event_stream_up") == 0
    assert watched.told("events_received_total") == 9


def test_a_reload_loses_no_count(watched: Watched) -> None:
    watched.events.received = 9
    assert watched.told("events_received_total") == 9
    watched.events.received = 11
    watched.events = Events(received=1)
    watched.begin()
    assert watched.told("events_received_total") == 12


def test_a_changed_inventory_is_shown_as_long_as_it_freezes(watched: Watched) -> None:
    watched.life.book("1.0").run("MIG-1-0")
    watched.after(300)
    assert watched.told("inventory_frozen") == 0
    assert watched.life.host.gpu is not None
    watched.life.set_gpu(migs=watched.life.host.gpu.migs[:-1])
    watched.sweep()
    assert watched.told("inventory_frozen") == 1
    watched.life.host.pass_time(121)
    assert watched.told("inventory_frozen") == 0


# --- what no event told


def lose(watched: Watched, *, tell: bool = False) -> None:
    """A container that is booked goes; between two sweeps."""
    watched.life.book("1.0").run("MIG-1-0")
    watched.after(120)
    watched.life.remove(told=tell)


def test_a_drift_that_no_event_told_is_counted_once(watched: Watched) -> None:
    lose(watched)
    watched.after(60)
    assert watched.told("drifts_missed_by_events_total") == 0  # its event may be on its way
    watched.after(180)
    assert watched.told("drifts_missed_by_events_total") == 1


@pytest.mark.parametrize("late", [False, True])
def test_an_event_makes_it_no_missed_one(watched: Watched, late: bool) -> None:
    lose(watched)
    if late:
        watched.after(60)
    watched.meter.on_events(frozenset({ContainerName(NAME)}))
    watched.after(240)
    assert watched.told("drifts_missed_by_events_total") == 0


def test_a_break_of_the_stream_explains_what_no_event_told(watched: Watched) -> None:
    lose(watched)
    watched.life.host.since = watched.life.host.boot
    watched.after(240)
    assert watched.told("drifts_missed_by_events_total") == 0


def test_what_the_books_alone_made_is_no_missed_event(watched: Watched) -> None:
    watched.life.book("1.0").run("MIG-1-0")
    watched.after(120)
    watched.life.list_in("1.1")  # somebody writes it where it is not
    watched.after(240)
    assert watched.told("drifts_missed_by_events_total") == 0


def test_what_was_so_at_the_start_is_no_missed_event(watched: Watched) -> None:
    watched.life.book("1.0")
    watched.life.host.pass_time(100_000)
    watched.after(240)
    assert watched.told("drifts_missed_by_events_total") == 0


# --- harmless


def test_a_container_or_a_user_is_in_no_label(watched: Watched) -> None:
    lose(watched)
    watched.after(60)
    text = watched.meter.render().decode()
    assert watched.told("drifts", kind="stale-allocation", verdict="held") == 1
    assert NAME.partition("._.")[0] not in text
    assert "alice" not in text


def test_metrics_that_fail_are_told_once_and_harm_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("broken")

    with capture_logs() as entries, monkeypatch.context() as broken:
        watched.meter.close()  # its textfile would be rendered beside, and fail too
        watched.meter = PassMetrics(lambda: watched.queue, lambda: 0.0)
        watched.begin()
        until(watched.textfile.exists)  # the next one is due in 15 s
        broken.setattr(Metrics, "count_pass", fail)
        broken.setattr(Metrics, "render", fail)
        for _ in range(3):
            watched.sweep()
            watched.meter.count_failed_pass(ONE, 1.0, panic=True)
            assert watched.meter.render() == b""
    told = [entry for entry in entries if "ZeroDivisionError: broken" in str(entry.get("reason"))]
    assert len(told) == 3  # for each of the three ways in which it failed
    watched.sweep()
    assert watched.meter.render()


def test_a_client_library_that_is_not_there_harms_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ds01d.reporting.metrics", None)
    with capture_logs() as entries:
        watched.meter = PassMetrics(lambda: watched.queue)
        watched.begin()
        watched.sweep()
        watched.meter.count_failed_pass(ONE, 1.0, panic=True)
        assert watched.meter.render() == b""
    assert len([entry for entry in entries if "metrics" in str(entry.get("reason"))]) == 1


def test_without_metrics_nothing_is_kept_and_the_client_is_not_loaded() -> None:
    program = (
        "import sys, ds01d.bootstrap, ds01d.daemon.loop\n"
        "from ds01d.config import Config\n"
        "from ds01d.daemon.dirty_set import DirtySet\n"
        "from ds01d.daemon.timers import Timers\n"
        "from ds01d.daemon.worker import Worker\n"
        "timers = Timers(print)\n"
        "worker = Worker(None, DirtySet(timers.schedule), timers, None, None)\n"
        "worker._metrics.apply_config(Config(), None)\n"
        "assert worker._metrics.render() == b''\n"
        "assert 'prometheus_client' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
