"use strict";
// Polls page.json and draws it. Names and reasons are written by users: they are only ever set as
// text, with characters that cannot be seen escaped, and each is isolated from its surroundings.
(() => {
  const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu;
  const HOLDERS = 6; // of a slot that are shown at once
  const LATE_S = 30; // how late a status may be before the page says so
  const byId = (id) => document.getElementById(id);
  let data = null;
  let etag = "";
  let offset = 0; // the server's clock less ours, in ms
  let pollMs = 5000;
  let failure = "";
  const opened = new Set();

  // --- elements

  function printable(value) {
    return String(value).replace(INVISIBLE, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);
  }

  function make(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== undefined && value !== null && value !== "") element.setAttribute(key, value);
    }
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined || child === "") continue;
      element.append(child instanceof Node ? child : printable(child));
    }
    return element;
  }

  const name = (value) => make("bdi", {}, value);
  const toned = (tone, value) => make("span", { class: tone }, value);

  function moment(at, relative = true) {
    const when = at ? new Date(at) : null;
    if (when === null || Number.isNaN(when.valueOf())) return at ? name(at) : "";
    const element = make("time", { datetime: when.toISOString(), title: when.toLocaleString() });
    element.dataset.relative = relative ? "yes" : "no";
    tick(element);
    return element;
  }

  function span(seconds) {
    const s = Math.round(Math.abs(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  }

  const now = () => Date.now() + offset;

  function tick(element) {
    const when = new Date(element.getAttribute("datetime"));
    const seconds = (when - now()) / 1000;
    const relative = seconds < 0 ? `${span(seconds)} ago` : `in ${span(seconds)}`;
    const text = element.dataset.relative === "yes" ? relative : when.toLocaleString();
    if (element.textContent !== text) element.textContent = text;
  }

  // columns: [label, class]; a row: {cells, class, header}; header: the first cell names its row.
  function table(caption, columns, rows) {
    const head = make("tr", { role: "row" }, columns.map(([label, kind]) =>
      make("th", { scope: "col", role: "columnheader", class: kind }, label)));
    const body = rows.map((row) => make("tr", { role: "row", class: row.class },
      row.cells.map((cell, column) => {
        const [label, kind] = columns[column];
        const parts = [cell].flat().filter((part) => part !== "" && part !== null && part !== undefined);
        if (column === 0) return make("th", { scope: "row", role: "rowheader", class: kind }, parts);
        // On a narrow screen what is empty is left out; the dash says that it is.
        const css = [kind, parts.length ? "" : "empty"].filter(Boolean).join(" ");
        return make("td", { role: "cell", class: css, "data-label": label }, parts.length ? parts : "\u2013");
      })));
    return make("table", { role: "table" }, caption ? make("caption", {}, caption) : null,
      make("thead", { role: "rowgroup" }, head), make("tbody", { role: "rowgroup" }, body));
  }

  const sentence = (text, tone = "faint") => make("p", { class: tone }, text);
  const gib = (value) => (value / 2 ** 30).toFixed(1);

  function bar(parts, whole) {
    // For the eye alone: the same numbers stand beside it.
    const element = make("span", { class: "bar", "aria-hidden": "true" });
    for (const [kind, value] of parts) {
      const piece = make("i", { class: kind });
      piece.style.width = `${whole > 0 ? Math.max(0, Math.min(100, (100 * value) / whole)) : 0}%`;
      element.append(piece);
    }
    return element;
  }

  // --- sections

  function holderText(holder) {
    const user = holder.user ? `${holder.user}${holder.user_is_guess ? " (guess)" : ""}` : "";
    const state = holder.state === "running" ? "" : ` ${holder.state}`;
    return make("p", {}, name(holder.container), user ? [" of ", name(user)] : "",
      state ? toned("faint", state) : "",
      holder.until ? [toned("faint", ", ends "), moment(holder.until)] : "");
  }

  function holderCell(slot) {
    const lines = slot.holders.map(holderText);
    const foreign = (slot.foreign || []).map((other) =>
      make("p", { class: "warn" }, "not booked: ", name(other)));
    const all = [...lines, ...foreign];
    if (all.length <= HOLDERS + 1) return all;
    const key = `slot ${slot.slot}`;
    const rest = make("details", {}, make("summary", {}, `and ${all.length - HOLDERS} more`), all.slice(HOLDERS));
    rest.open = opened.has(key);
    rest.addEventListener("toggle", () => (rest.open ? opened.add(key) : opened.delete(key)));
    return [...all.slice(0, HOLDERS), rest];
  }

  function matches(slot, filter) {
    if (!filter) return true;
    const words = [slot.slot, slot.profile, ...(slot.foreign || [])];
    for (const holder of slot.holders) words.push(holder.container, holder.user);
    return words.some((word) => word && String(word).toLowerCase().includes(filter));
  }

  function memory(entry) {
    if (entry.memory_used === null || !entry.memory_total) return "";
    return `${gib(entry.memory_used)} of ${gib(entry.memory_total)} GiB`;
  }

  function gpuCaption(gpu, index) {
    const parts = [make("strong", {}, `GPU ${index}`)];
    if (!gpu) return parts;
    if (gpu.name) parts.push(" ", name(gpu.name));
    if (gpu.utilization !== null) {
      parts.push(", utilization ", bar([["used", gpu.utilization]], 100), `${gpu.utilization} %`);
    }
    if (memory(gpu)) {
      parts.push(", memory ", bar([["used", gpu.memory_used]], gpu.memory_total), memory(gpu));
    }
    if (gpu.temperature !== null) parts.push(`, ${gpu.temperature} \u00b0C`);
    for (const problem of gpu.health || []) parts.push(" ", toned("bad", problem));
    return parts;
  }

  function drawSlots(status) {
    const filter = byId("filter").value.trim().toLowerCase();
    const gpus = new Map((status.gpus || []).map((gpu) => [String(gpu.index), gpu]));
    const groups = new Map();
    for (const index of gpus.keys()) groups.set(index, []);
    for (const slot of status.slots || []) {
      const index = String(slot.slot).split(".")[0];
      if (!groups.has(index)) groups.set(index, []);
      if (matches(slot, filter)) groups.get(index).push(slot);
    }
    const columns = [["Slot", "slot"], ["Profile", "profile"], ["Holder", "holder"], ["Memory", "number memory"], ["Drift", "drift"]];
    const tables = [];
    for (const [index, slots] of groups) {
      if (!slots.length) continue;
      const rows = slots.map((slot) => {
        const taken = slot.holders.length || (slot.foreign || []).length;
        return {
          class: taken ? "" : "free",
          cells: [slot.slot, slot.profile || (slot.type === "mig_instance" ? "" : "whole GPU"),
            taken ? holderCell(slot) : "free", memory(slot),
            (slot.drifts || []).map((drift) => make("p", { class: "warn" }, drift))],
        };
      });
      const drawn = table(gpuCaption(gpus.get(index), index), columns, rows);
      drawn.classList.add("gpu");
      tables.push(drawn);
    }
    const nothing = filter ? "no slot matches the filter" : "no slots are known";
    byId("slots").replaceChildren(...(tables.length ? tables : [sentence(nothing)]));
  }

  function drawEnds(status) {
    const ends = [];
    for (const slot of status.slots || []) {
      for (const holder of slot.holders) {
        if (holder.until) ends.push([holder.until, "hold after stop", slot.slot, holder]);
      }
    }
    ends.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    const rows = ends.slice(0, 50).map(([until, what, slot, holder]) => ({
      cells: [moment(until), moment(until, false), what, slot, name(holder.container), holder.user ? name(holder.user) : ""],
    }));
    for (const freeze of status.freezes || []) {
      rows.push({
        cells: [freeze.until ? moment(freeze.until) : "until thawed", freeze.until ? moment(freeze.until, false) : "",
          "freeze", "", name(freeze.subject || "everything"), name(freeze.by || "")],
      });
    }
    fill("ends", [["Ends"], ["At"], ["What"], ["Slot"], ["Container"], ["User"]], rows, "nothing that is held ends by itself");
    if (ends.length > 50) byId("ends").append(sentence(`and ${ends.length - 50} more`));
  }

  function fill(id, columns, rows, nothing) {
    byId(id).replaceChildren(rows.length ? table("", columns, rows) : sentence(nothing));
  }

  const TONES = { failed: "bad", due: "warn", waiting: "", done: "good" };

  function drawDrifts(status) {
    const rows = (status.open_drifts || []).map((drift) => ({
      cells: [drift.kind, toned(TONES[drift.verdict] || "", drift.verdict), name(drift.container || ""),
        drift.slot || "", drift.until ? moment(drift.until) : "", name(drift.reason || "")],
    }));
    fill("drifts", [["Kind"], ["Verdict"], ["Container"], ["Slot"], ["Until"], ["Reason"]], rows, "the books are consistent");
  }

  function drawFindings(status) {
    const rows = (status.findings || []).map((finding) => ({
      cells: [finding.kind, name(finding.container || ""), finding.slot || "", name(finding.reason || "")],
    }));
    fill("findings", [["Kind"], ["Container"], ["Slot"], ["Reason"]], rows, "none");
  }

  function drawActivity(activity) {
    if (activity.error || !activity.log) {
      const why = [sentence(`not known: ${activity.error || "no answer yet"}`)];
      byId("waiting").replaceChildren(...why.map((part) => part.cloneNode(true)));
      byId("log").replaceChildren(...why);
      return;
    }
    const waiting = activity.waiting.map((waiter) => ({
      cells: [waiter.position, waiter.user ? name(waiter.user) : "", name(waiter.container),
        waiter.slot ? `slot ${waiter.slot}` : `${waiter.count} ${waiter.profile || (waiter.count === 1 ? "slot" : "slots")}`,
        name(waiter.reason || "")],
    }));
    fill("waiting", [["Place"], ["User"], ["Container"], ["Wants"], ["Why not yet"]], waiting, "nobody waits");
    const log = activity.log.map((entry) => ({
      cells: [moment(entry.at), entry.operation, entry.user ? name(entry.user) : "", name(entry.container || ""),
        entry.gpu || "", toned({ failed: "bad", error: "bad", success: "good", done: "good" }[entry.status] || "", entry.status),
        name(entry.details || "")],
    }));
    fill("log", [["When"], ["Operation"], ["User"], ["Container"], ["Slot"], ["Result"], ["Details"]], log, "no operations yet");
  }

  function drawWeek(week) {
    const host = byId("week");
    if (week.error || !week.lines) {
      host.replaceChildren(sentence(`not known: ${week.error || "no answer yet"}`));
      return;
    }
    const kinds = ["used", "idle", "retained", "unknown"];
    const most = Math.max(1e-9, ...week.lines.map((line) => line.times.gpu_hours.booked));
    const rows = week.lines.map((line) => {
      const hours = line.times.gpu_hours;
      const day = new Date(`${line.subject}T12:00:00`);
      const label = Number.isNaN(day.valueOf()) ? line.subject
        : day.toLocaleDateString(undefined, { weekday: "short", day: "numeric", month: "short" });
      return {
        cells: [label, bar(kinds.map((kind) => [kind, hours[kind]]), most), hours.booked.toFixed(1),
          ...kinds.map((kind) => hours[kind].toFixed(1))],
      };
    });
    const columns = [["Day"], ["Share"], ["Booked", "number"], ["Used", "number"], ["Idle", "number"],
      ["Retained", "number"], ["Unknown", "number"]];
    const key = kinds.map((kind) => [make("span", { class: `key ${kind}`, "aria-hidden": "true" }), `${kind} `]);
    host.replaceChildren(rows.length ? table("", columns, rows) : sentence("no accounting yet"),
      make("p", { class: "faint" }, key));
  }

  function drawSources(status) {
    const daemon = status.daemon || {};
    const rows = Object.entries(status.sources || {}).map(([source, state]) => ({
      cells: [source, state.ok ? toned("good", "ok") : toned("bad", "failed"), moment(state.since), name(state.reason || "")],
    }));
    const parts = [];
    if (daemon.version) {
      parts.push(make("p", {}, `ds01d ${daemon.version}, mode ${daemon.mode}, last sweep `, moment(daemon.last_sweep),
        daemon.last_sweep_duration_s ? ` (${daemon.last_sweep_duration_s} s)` : ""));
    }
    parts.push(rows.length ? table("", [["Source"], ["State"], ["Since"], ["Reason"]], rows) : sentence("nothing is known"));
    byId("sources").replaceChildren(...parts);
  }

  function drawSummary(status, activity) {
    const slots = status.slots || [];
    const free = slots.filter((slot) => !slot.holders.length && !(slot.foreign || []).length).length;
    const open = (status.open_drifts || []).length;
    const findings = (status.findings || []).length;
    const tiles = [["Slots", slots.length, "slots"], ["Free", free, "slots"], ["In use", slots.length - free, "slots"],
      ["Waiting", activity.waiting ? activity.waiting.length : "?", "waiting"], ["Drifts", open, "drifts"],
      ["Findings", findings, "findings"]];
    byId("summary").replaceChildren(...tiles.map(([label, value, section]) =>
      make("div", {}, make("dt", {}, make("a", { href: `#h-${section}` }, label)), make("dd", {}, value))));
  }

  // --- how fresh and how well it is

  function problems(status) {
    const daemon = status.daemon || {};
    const found = [];
    if (status.error) found.push(`cannot read the status: ${status.error}`);
    if (daemon.alive === false) found.push(`ds01d is not running: ${daemon.reason}`);
    else if (daemon.reason) found.push(daemon.reason);
    if (daemon.passes && daemon.passes.failing) found.push(`passes fail: ${daemon.passes.reason}`);
    if (status.books && !status.books.ok) found.push(`the books cannot be read: ${status.books.reason}`);
    const due = Math.max(Date.parse(daemon.next_sweep) || 0, (Date.parse(daemon.written_at) || 0) + 60000);
    if (daemon.alive && daemon.written_at && now() > due + LATE_S * 1000) {
      found.push(`the status is ${span((now() - Date.parse(daemon.written_at)) / 1000)} old`);
    }
    return found;
  }

  function summarize(status) {
    const drifts = status.open_drifts || [];
    const failed = drifts.filter((drift) => drift.verdict === "failed").length;
    if (!drifts.length) return "the books are consistent";
    const count = drifts.length === 1 ? "1 drift is open" : `${drifts.length} drifts are open`;
    return failed ? `${count}, ${failed} failed` : count;
  }

  function drawHealth() {
    const alarms = failure ? [`cannot reach the server: ${failure}; what is shown is old`] : [];
    const health = byId("health");
    if (data) {
      const status = data.status || {};
      alarms.push(...problems(status));
      const daemon = status.daemon || {};
      const notes = [...(daemon.degraded || []), ...(daemon.warnings || []).map((warning) => warning.reason)];
      const drifts = status.open_drifts || [];
      const isBad = alarms.length || drifts.some((drift) => drift.verdict === "failed");
      const tone = isBad ? "bad" : notes.length || drifts.length ? "warn" : "good";
      const text = alarms.length ? "not up to date" : notes.length ? notes.join("; ") : summarize(status);
      // A status region is read out when it changes, so it changes only with what it says.
      if (health.textContent !== printable(text) || health.className !== tone) {
        health.className = tone;
        health.textContent = printable(text);
      }
      byId("fresh").replaceChildren(...(daemon.written_at ? ["as of ", moment(daemon.written_at)] : []));
    }
    const alarm = byId("alarm");
    const text = printable(alarms.join("; "));
    if (alarm.textContent !== text) alarm.textContent = text;
    alarm.hidden = !alarms.length;
    document.body.classList.toggle("stale", alarms.length > 0);
    document.title = `${alarms.length ? "(!) " : ""}GPU slots`;
  }

  function draw() {
    const status = data.status || {};
    const activity = data.activity || {};
    drawSummary(status, activity);
    drawSlots(status);
    drawEnds(status);
    drawActivity(activity);
    drawDrifts(status);
    drawFindings(status);
    drawWeek(data.week || {});
    drawSources(status);
    drawHealth();
  }

  // --- polling

  async function poll() {
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const reply = await fetch("page.json", { headers, cache: "no-store", signal: AbortSignal.timeout(10000) });
      const date = Date.parse(reply.headers.get("Date"));
      if (date) offset = date - Date.now();
      if (reply.status === 200) {
        data = await reply.json();
        etag = reply.headers.get("ETag") || "";
        pollMs = Math.max(1000, 1000 * (data.poll_s || 5));
        failure = "";
        draw();
      } else if (reply.status !== 304) {
        throw new Error(`HTTP ${reply.status}`);
      }
      failure = "";
    } catch (error) {
      failure = error.name === "TimeoutError" ? "no answer in 10 s" : String(error.message || error);
    }
    drawHealth();
  }

  async function run() {
    for (;;) {
      // Nobody looks: nothing is asked.
      if (!document.hidden) await poll();
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pollMs);
        if (document.hidden) {
          document.addEventListener("visibilitychange", () => { clearTimeout(timer); resolve(); }, { once: true });
        }
      });
    }
  }

  byId("place").textContent = location.host;
  byId("filter").addEventListener("input", () => data && drawSlots(data.status || {}));
  setInterval(() => {
    for (const element of document.querySelectorAll("time")) tick(element);
    drawHealth();
  }, 5000);
  run();
})();
