// One function for each section of the page: from the documents to tables.

const HOLDERS = 6; // of a slot that are shown at once
const opened = new Set(); // the slots of which all are shown

function holderText(holder) {
  const user = holder.user ? `${holder.user}${holder.user_is_guess ? " (guess)" : ""}` : "";
  const state = holder.state === "running" ? "" : ` ${holder.state}`;
  return make("p", {}, name(holder.container), user ? [" of ", name(user)] : "",
    state ? toned("faint", state) : "",
    holder.until ? [toned("faint", ", ends "), moment(holder.until)] : "",
    holder.idle_since ? [toned("warn", ", idle since "), moment(holder.idle_since)] : "");
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
  if (typeof entry.memory_used !== "number" || !entry.memory_total) return "";
  return `${gib(entry.memory_used)} of ${gib(entry.memory_total)} GiB`;
}

function readings(slot) {
  const busy = typeof slot.utilization === "number" ? `${slot.utilization} % busy` : "";
  return [memory(slot), busy].filter(Boolean).map((text) => make("p", {}, text));
}

function gpuCaption(gpu, index) {
  const parts = [make("strong", {}, `GPU ${index}`)];
  if (!gpu) return parts;
  if (gpu.name) parts.push(" ", name(gpu.name));
  if (typeof gpu.utilization === "number") {
    parts.push(", utilization ", bar([["used", gpu.utilization]], 100), `${gpu.utilization} %`);
  }
  if (memory(gpu)) {
    parts.push(", memory ", bar([["used", gpu.memory_used]], gpu.memory_total), memory(gpu));
  }
  if (typeof gpu.temperature === "number") parts.push(`, ${gpu.temperature} \u00b0C`);
  for (const problem of gpu.health || []) parts.push(" ", toned("bad", problem));
  return parts;
}

const filterText = () => byId("filter").value.trim().toLowerCase();

function drawSlots(status) {
  const filter = filterText();
  const gpus = new Map((status.gpus || []).map((gpu) => [String(gpu.index), gpu]));
  const groups = new Map();
  for (const index of gpus.keys()) groups.set(index, []);
  for (const slot of status.slots || []) {
    const index = String(slot.slot).split(".")[0];
    if (!groups.has(index)) groups.set(index, []);
    if (matches(slot, filter)) groups.get(index).push(slot);
  }
  const columns = [["Slot", "slot"], ["Profile", "profile"], ["Holder", "holder"], ["Readings", "number memory"], ["Drift", "drift"]];
  const tables = [];
  for (const [index, slots] of groups) {
    if (!slots.length) continue;
    const rows = slots.map((slot) => {
      const taken = slot.holders.length || (slot.foreign || []).length;
      return {
        class: taken ? "" : "free",
        cells: [slot.slot, slot.profile || (slot.type === "mig_instance" ? "" : "whole GPU"),
          taken ? holderCell(slot) : "free", readings(slot),
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
    const why = `not known: ${activity.error || "no answer yet"}`;
    for (const id of ["waiting", "log"]) byId(id).replaceChildren(sentence(why));
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

function drawSummary(status, activity, fleet) {
  const slots = status.slots || [];
  const free = slots.filter((slot) => !slot.holders.length && !(slot.foreign || []).length).length;
  const open = (status.open_drifts || []).length;
  const findings = (status.findings || []).length;
  const tiles = [["Slots", slots.length, "slots"], ["Free", free, "slots"], ["In use", slots.length - free, "slots"],
    ["Waiting", activity.waiting ? activity.waiting.length : "?", "waiting"], ["Drifts", open, "drifts"],
    ["Findings", findings, "findings"]];
  if (fleet && fleet.total) {
    tiles.unshift(["Hosts", hostCount(fleet), "fleet"], ["Free on all", fleet.total.free, "fleet"]);
  }
  byId("summary").replaceChildren(...tiles.map(([label, value, section]) =>
    make("div", {}, make("dt", {}, make("a", { href: `#h-${section}` }, label)), make("dd", {}, value))));
}
