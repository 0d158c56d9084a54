"""The page in a real browser: no name that a user has chosen runs, and all of it can be read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from ds01d.config import WebConfig
from ds01d.reporting.http_server import BoundedServer, bind_address
from ds01d.web.application import create_application, list_hosts, list_routes
from ds01d.web.content import PageContent
from ds01d.web.page import build_page
from tests.support.books import until
from tests.support.browser import Browser, find_browser

# What a browser does with the page is the same whatever Python has sent it.
pytestmark = [pytest.mark.browser, pytest.mark.python_neutral, pytest.mark.timeout(300)]

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(document.domain)</script><svg onload=alert(1)>',
    "' onmouseover='alert(1)' style='position:fixed;inset:0",
    "</script><script>alert(1)</script>",
    "{{constructor.constructor('alert(1)')()}}",
    "javascript:alert(1)//",
    "exe.\u202egnp\u0000\u200b\ud83d\ude08\ue000",
    "__proto__",
    "x" * 300,
)
ISO = "2026-11-29T12:00:00+00:00"


class Shown:
    """What a server in this process serves, and can be changed."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self.status = status
        self.activity: Mapping[str, Any] = {"waiting": [], "log": []}
        self.week: Mapping[str, Any] = {"lines": []}
        self.fleet: Mapping[str, Any] | None = None
        self.port = 0
        self._clock = 0.0

    def start(self) -> BoundedServer:
        content = PageContent(
            read_status=lambda: self.status,
            find_status_version=lambda: id(self.status),
            read_activity=lambda: self.activity,
            read_week=lambda: self.week,
            read_fleet=None if self.fleet is None else lambda: self.fleet or {},
            clock=self._pass_time,
        )
        listener = bind_address(("127.0.0.1", self.port))
        self.port = int(listener.getsockname()[1])
        settings = WebConfig(listen=f"127.0.0.1:{self.port}")
        routes = list_routes(build_page(), content.find_data, content.find_status)
        server = BoundedServer(create_application(routes, list_hosts(settings)), listener)
        threading.Thread(target=server.run, daemon=True).start()
        return server

    def _pass_time(self) -> float:
        self._clock += 1000.0
        return self._clock

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


def make_holder(name: str, user: str, **other: object) -> dict[str, object]:
    return {"container": name, "user": user, "state": "running", "until": None, **other}


def make_slot(name: str, *holders: Mapping[str, object], **other: object) -> dict[str, object]:
    empty: dict[str, object] = {
        "foreign": [],
        "drifts": [],
        "memory_used": None,
        "memory_total": None,
    }
    slot = {"slot": name, "type": "mig_instance", "profile": "1g.10gb", "holders": [*holders]}
    return {**slot, **empty, **other}


def make_status(slots: list[dict[str, object]], **other: object) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    daemon = {
        "alive": True, "reason": "", "written_at": now, "version": "1", "mode": "repair",
        "degraded": [], "warnings": [], "last_sweep": now, "passes": {"failing": False},
    }  # fmt: skip
    gpu = {
        "index": 0, "name": "NVIDIA A100 80GB PCIe", "utilization": 37, "temperature": 41,
        "memory_used": 7 << 30, "memory_total": 80 << 30, "health": [],
    }  # fmt: skip
    sources = {"docker": {"ok": True, "reason": "", "since": now}}
    books = {"ok": True, "reason": ""}
    whole = {"daemon": daemon, "books": books, "gpus": [gpu], "slots": slots, "sources": sources}
    return {**whole, "open_drifts": [], "findings": [], "freezes": [], **other}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium-headless-shell")
    with Browser(program) as opened:
        yield opened


@pytest.fixture
def shown(browser: Browser) -> Iterator[Shown]:
    browser.complaints.clear()
    found = Shown(make_status([make_slot("0.0", make_holder("train._.1001", "alice"))]))
    server = found.start()
    try:
        yield found
    finally:
        browser.call("Page.navigate", url="about:blank")
        server.request_stop()


def make_fleet(hosts: list[dict[str, Any]]) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    known = [host for host in hosts if host["state"] == "ok"]
    slots = [slot for host in known for slot in host["slots"]]
    total = {"hosts": len(hosts), "unknown": len(hosts) - len(known), "slots": len(slots)}
    total["free"] = sum(not slot["holders"] and not slot["foreign"] for slot in slots)
    return {"at": now, "total": total, "hosts": hosts}


def make_host(name: str, *slots: Mapping[str, object], reason: str = "") -> dict[str, Any]:
    """A host; with a reason one that is unknown, of which these are the last word."""
    host = {"host": name, "state": "unknown" if reason else "ok", "reason": reason, "age_s": 12.0}
    times = {"unknown_since": ISO if reason else None, "last_answer": ISO, "published_at": ISO}
    given = [*slots]
    return {
        **host,
        **times,
        "slots": None if reason else given,
        "last_slots": given if reason and given else None,
    }


@contextmanager
def serving(browser: Browser, shown: Shown) -> Iterator[Shown]:
    """Serve it, with all hosts."""
    server = shown.start()
    try:
        yield shown
    finally:
        # Or its next poll would be a complaint in the middle of the next test.
        browser.call("Page.navigate", url="about:blank")
        server.request_stop()


def read_text(browser: Browser, selector: str = "body") -> str:
    return str(browser.evaluate(f"document.querySelector({selector!r}).innerText"))


def find_overflow(browser: Browser) -> list[str]:
    """Elements that reach out of the screen to the right."""
    script = """[...document.querySelectorAll('body *')].filter((e) =>
        e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('thead'))
        .map((e) => e.tagName + ' ' + e.textContent.slice(0, 40))"""
    found: list[str] = browser.evaluate(script)
    return found


def test_whatever_users_write_is_text(browser: Browser, shown: Shown) -> None:
    holders = [make_holder(name, name, state=name, until=name, idle_since=name) for name in HOSTILE]
    slots = [
        make_slot(name, *holders, foreign=[name], drifts=[name], profile=name) for name in HOSTILE
    ]
    row = {"kind": "k", "verdict": "due", "slot": None, "until": None}
    drifts = [{**row, "kind": n, "container": n, "reason": n, "verdict": n} for n in HOSTILE]
    shown.status = make_status(slots, open_drifts=drifts, findings=drifts)
    shown.status["gpus"][0] |= {"name": HOSTILE[0], "health": list(HOSTILE)}
    shown.status["daemon"] |= {
        "degraded": list(HOSTILE),
        "reason": HOSTILE[0],
        "version": HOSTILE[1],
    }
    shown.status["sources"] = {
        name: {"ok": False, "reason": name, "since": name} for name in HOSTILE
    }
    shown.status["freezes"] = [{"subject": name, "by": name, "until": None} for name in HOSTILE]
    entry = {"operation": "o", "gpu": "g", "status": "s"}
    log = [
        {**dict.fromkeys(entry, n), "at": n, "user": n, "container": n, "details": n}
        for n in HOSTILE
    ]
    waiter = {"position": 1, "slot": None, "profile": None, "count": 1}
    waiting = [{**waiter, "user": n, "container": n, "reason": n, "profile": n} for n in HOSTILE]
    shown.activity = {"waiting": waiting, "log": log}
    hours = dict.fromkeys(("booked", "used", "idle", "retained", "unknown"), 1.0)
    shown.week = {"lines": [{"subject": n, "times": {"gpu_hours": hours}} for n in HOSTILE]}
    browser.resize(360)
    browser.open(shown.url)
    assert browser.complaints == []
    assert browser.evaluate("document.querySelectorAll('script, img, svg, iframe').length") == 1
    attributes = "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames())"
    assert not [name for name in browser.evaluate(attributes) if name.startswith("on")]
    text = read_text(browser)
    for name in HOSTILE[:6]:
        assert name in text
    assert "exe.\\u{202e}gnp\\u{0}\\u{200b}\U0001f608\\u{e000}" in text
    assert find_overflow(browser) == []


def test_a_script_from_elsewhere_is_refused_by_the_policy(browser: Browser, shown: Shown) -> None:
    """What the page itself never does, so that the second wall is seen to stand."""
    browser.open(shown.url)
    attempt = """(() => { const s = document.createElement('script');
        try { s.textContent = 'window.broken = 1'; } catch (e) { return String(e); }
        document.body.append(s); return 'no types'; })()"""
    assert "TrustedScript" in browser.evaluate(attempt)
    frame = "fetch('https://192.0.2.1/').then(() => 'sent', (e) => 'refused')"
    assert browser.evaluate(frame) == "refused"
    assert browser.evaluate("typeof window.broken") == "undefined"
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)


def test_a_thousand_containers_fit_a_phone_and_a_desk(browser: Browser, shown: Shown) -> None:
    names = [f"job{number}._.{1000 + number}" for number in range(1000)]
    slots = [
        make_slot(
            f"{gpu}.{mig}",
            *(
                make_holder(name, f"user{n}")
                for n, name in enumerate(names)
                if n % 56 == gpu * 7 + mig
            ),
        )
        for gpu in range(8)
        for mig in range(7)
    ]
    shown.status = make_status(slots)
    for width in (360, 1280):
        browser.resize(width)
        browser.open(shown.url)
        assert read_text(browser, "#summary").split()[:4] == ["Slots", "56", "Free", "0"]
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        assert find_overflow(browser) == []
    browser.evaluate("document.querySelector('details').open = true")
    type_filter(browser, "USER999")
    assert browser.evaluate("document.querySelectorAll('#slots tbody tr').length") == 1
    assert "job999._.1999" in browser.evaluate("document.querySelector('#slots').textContent")
    assert browser.complaints == []


def test_it_can_be_heard_and_read(browser: Browser, shown: Shown) -> None:
    """By the browser's own tree of accessibility, and by the contrast of every text."""
    shown.status["slots"][0]["holders"][0]["until"] = ISO
    for width, dark in ((360, False), (360, True), (1280, False), (1280, True)):
        browser.resize(width, dark=dark)
        browser.open(shown.url)
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
        assert {"table", "columnheader", "rowheader", "cell", "main", "banner", "status"} <= {
            *roles
        }
        labels = [node["name"]["value"] for node in nodes if node["role"]["value"] == "searchbox"]
        assert labels == ["Filter"]
        assert browser.evaluate(CONTRAST) == []
    levels = browser.evaluate("[...document.querySelectorAll('h1, h2')].map((h) => h.tagName)")
    assert levels[0] == "H1"
    assert {*levels[1:]} == {"H2"}


def type_filter(browser: Browser, text: str) -> None:
    browser.evaluate(f"""(() => {{ const f = document.getElementById('filter');
        f.value = {text!r}; f.dispatchEvent(new Event('input')); }})()""")


def test_all_hosts_are_shown_and_an_unknown_one_is_never_left_out(browser: Browser) -> None:
    browser.complaints.clear()
    shown = Shown(make_status([make_slot("0.0")]))
    train = make_slot("1.0", make_holder("train._.1001", "alice"))
    evaluation = make_slot("1.1", make_holder("eval._.1002", "bob"), foreign=["web"])
    known = make_host("gpu01", train, make_slot("1.2"), make_slot("1.3"))
    dead = make_host("gpu02", evaluation, make_slot("1.2"), reason="ssh: connection refused")
    shown.fleet = make_fleet([known, dead, make_host("gpu03", reason="not asked yet")])
    with serving(browser, shown):
        for width in (1280, 360):
            browser.resize(width)
            browser.open(shown.url)
            rows = [
                " ".join(str(row).split())
                for row in browser.evaluate(
                    "[...document.querySelectorAll('#hosts tbody tr')].map((r) => r.innerText)"
                )
            ]
            assert [row.split()[0] for row in rows] == ["gpu01", "gpu02", "gpu03"]
            assert "2 × 1g.10gb" in rows[0]
            assert "alice" in rows[0]
            assert "ssh: connection refused" in rows[1]
            assert "1 of 2 slots held" in rows[1]
            assert "nothing is known of what it had before" in rows[2]
            total = "2 of 3 slots free on 1 host; 2 hosts unknown"
            assert total in read_text(browser, "#hosts")
            assert read_text(browser, "#health") == "2 hosts are unknown"
            summary = read_text(browser, "#summary").split("\n")
            assert [line for line in summary if line][:4] == ["Hosts", "1 of 3", "Free on all", "2"]
            assert find_overflow(browser) == []
            assert browser.evaluate(CONTRAST) == []
        # What nobody knows may be what is looked for, and so it stays.
        type_filter(browser, "alice")
        text = read_text(browser, "#hosts")
        assert "train._.1001 of alice" in text
        assert "eval._.1002" not in text
        assert "ssh: connection refused" in text
        type_filter(browser, "bob")
        text = read_text(browser, "#hosts")
        assert "gpu01" not in text
        assert "eval._.1002 of bob, not booked: web" in text
        type_filter(browser, "gpu01")
        assert "alice" in read_text(browser, "#hosts")
    assert browser.complaints == []


def test_what_hosts_say_is_text(browser: Browser) -> None:
    browser.complaints.clear()
    shown = Shown(make_status([make_slot("0.0")]))
    hosts = []
    for text in HOSTILE:
        slot = make_slot(text, make_holder(text, text, state=text), foreign=[text], profile=text)
        hosts += [make_host(text, slot), make_host(text, slot, reason=text)]
        hosts[-1] |= {"unknown_since": text, "last_answer": text}
    shown.fleet = make_fleet(hosts)
    with serving(browser, shown):
        browser.resize(360)
        browser.open(shown.url)
        assert browser.complaints == []
        browser.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert browser.evaluate("document.querySelectorAll('script, img, svg, iframe').length") == 1
        assert HOSTILE[0] in read_text(browser, "#hosts")
        assert find_overflow(browser) == []


def test_without_other_hosts_there_is_no_part_for_them(browser: Browser, shown: Shown) -> None:
    browser.open(shown.url)
    assert browser.evaluate("document.getElementById('fleet').hidden")
    assert "All hosts" not in read_text(browser)


CONTRAST = """(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const low = new Set();
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    if (!e.getClientRects().length || e.matches('script, noscript *')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(back(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)}`);
  }
  return [...low];
})()"""
"""Texts whose contrast is below that of WCAG 2.1, 1.4.3 (AA)."""


def test_what_is_old_says_so(browser: Browser, shown: Shown) -> None:
    browser.resize(1280)
    browser.open(shown.url)
    assert read_text(browser, "#health") == "the books are consistent"
    assert not browser.evaluate("document.body.classList.contains('stale')")
    old = make_status([make_slot("0.0")])
    old["daemon"] |= {"written_at": ISO, "next_sweep": ISO}
    shown.status = old
    browser.open(shown.url)
    assert "the status is" in read_text(browser, "#alarm")
    gone = make_status([make_slot("0.0")])
    gone["daemon"] |= {"alive": False, "reason": "process 7 has ended"}
    shown.status = gone
    browser.open(shown.url)
    assert read_text(browser, "#alarm") == "ds01d is not running: process 7 has ended"
    assert read_text(browser, "#health") == "not up to date"
    assert browser.evaluate("document.body.classList.contains('stale')")
    assert str(browser.evaluate("document.title")).startswith("(!)")
    assert browser.complaints == []


def test_a_page_whose_server_has_gone_says_so_and_comes_back(browser: Browser) -> None:
    shown = Shown(make_status([make_slot("0.0")]))
    server = shown.start()
    browser.resize(1280)
    browser.open(shown.url)
    server.request_stop()
    until(lambda: "cannot reach the server" in read_text(browser), 60)
    assert "0.0" in read_text(browser, "#slots")
    server = shown.start()
    until(lambda: read_text(browser, "#health") == "the books are consistent", 60)
    assert browser.evaluate("document.getElementById('alarm').hidden")
    server.request_stop()
