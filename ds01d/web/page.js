// Polls page.json, has it drawn, and says how fresh it is.

const LATE_S = 30; // how late a status may be before the page says so
let data = null;
let etag = "";
let pollMs = 5000;
let failure = "";

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
    const notes = [...(daemon.degraded || []), ...(daemon.warnings || []).map((warning) => warning.reason),
      ...fleetNotes(data.fleet)];
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
  drawSummary(status, activity, data.fleet);
  drawFleet(data.fleet);
  drawSlots(status);
  drawEnds(status);
  drawActivity(activity);
  drawDrifts(status);
  drawFindings(status);
  drawWeek(data.week || {});
  drawSources(status);
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
byId("filter").addEventListener("input", () => {
  if (!data) return;
  drawFleet(data.fleet);
  drawSlots(data.status || {});
});
setInterval(() => {
  for (const element of document.querySelectorAll("time")) tick(element);
  drawHealth();
}, 5000);
run();
