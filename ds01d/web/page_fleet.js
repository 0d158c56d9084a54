// All hosts, where there are several: one that is unknown is neither free nor empty, and is never left out.

const openedHosts = new Set(); // the hosts of which all slots are shown

function hostCount(fleet) {
  const { hosts, unknown } = fleet.total;
  return unknown ? `${hosts - unknown} of ${hosts}` : hosts;
}

function fleetNotes(fleet) {
  if (!fleet) return [];
  if (!fleet.total) return [`the other hosts are not known: ${fleet.error || "no answer yet"}`];
  const count = fleet.total.unknown;
  return count ? [count === 1 ? "1 host is unknown" : `${count} hosts are unknown`] : [];
}

const isTaken = (slot) => slot.holders.length || (slot.foreign || []).length;

function whoIs(slot) {
  const holders = slot.holders.map((holder) => [name(holder.container), holder.user ? [" of ", name(holder.user)] : "",
    holder.state === "running" ? "" : toned("faint", ` ${holder.state}`)]);
  const foreign = (slot.foreign || []).map((other) => [toned("warn", "not booked: "), name(other)]);
  const all = [...holders, ...foreign];
  const shown = all.slice(0, HOLDERS).flatMap((who, place) => (place ? [", ", ...who] : who));
  const rest = all.length > HOLDERS ? ` and ${all.length - HOLDERS} more` : "";
  return all.length ? [shown, rest] : "free";
}

function slotLine(slot) {
  return make("p", { class: isTaken(slot) ? "" : "faint" }, `${slot.slot} `, toned("faint", `${slot.profile || "GPU"}: `), whoIs(slot));
}

// How many of each kind are free: which host fits is the question people come with.
function freeKinds(slots) {
  const kinds = new Map();
  for (const slot of slots) {
    if (!isTaken(slot)) kinds.set(slot.profile || "GPU", (kinds.get(slot.profile || "GPU") || 0) + 1);
  }
  return [...kinds].map(([kind, count]) => `${count} \u00d7 ${kind}`).join(", ");
}

function slotList(host, slots, wanted) {
  // Who looks for a host wants all of it.
  const filter = host.host.toLowerCase().includes(wanted) ? "" : wanted;
  const shown = slots.filter((slot) => matches(slot, filter));
  // Who filters wants to see what was found.
  if (filter) return shown.map(slotLine);
  const users = new Set(slots.flatMap((slot) => slot.holders.map((holder) => holder.user || holder.container)));
  const names = [...users].slice(0, HOLDERS).flatMap((user, place) => (place ? [", ", name(user)] : [name(user)]));
  const foreign = slots.filter((slot) => (slot.foreign || []).length).length;
  const summary = make("summary", {}, users.size ? names : "nobody", users.size > HOLDERS ? ` and ${users.size - HOLDERS} more` : "",
    foreign ? `; ${foreign} not booked` : "");
  const list = make("details", {}, summary, slots.map(slotLine));
  list.open = openedHosts.has(host.host);
  list.addEventListener("toggle", () => (list.open ? openedHosts.add(host.host) : openedHosts.delete(host.host)));
  return [list];
}

// By the server's clock: an age of this moment, not of when the document was made.
const age = (fleet, host) =>
  (typeof host.age_s === "number" ? moment(new Date(Date.parse(fleet.at) - 1000 * host.age_s).toISOString()) : "");

function unknownCells(fleet, host, filter) {
  const why = make("p", { class: "bad" }, "unknown", host.unknown_since ? [" since ", moment(host.unknown_since)] : "", ": ", name(host.reason));
  const last = host.last_slots;
  if (!last) return [why, make("p", { class: "faint" }, "nothing is known of what it had before")];
  const taken = last.filter((slot) => slot.holders.length).length;
  const said = make("p", { class: "faint" }, "last word", host.last_answer ? [" ", moment(host.last_answer)] : "",
    `: ${taken} of ${last.length} slots held`);
  return [why, said, slotList(host, last, filter)];
}

function hostRow(fleet, host, filter) {
  if (host.state !== "ok" || !host.slots) {
    return { class: "", cells: [name(host.host), toned("bad", "unknown"), age(fleet, host), "", "", "", unknownCells(fleet, host, filter)] };
  }
  const { slots } = host;
  return {
    class: "",
    cells: [name(host.host), toned("good", "ok"), age(fleet, host), slots.length,
      slots.filter((slot) => !isTaken(slot)).length, freeKinds(slots), slotList(host, slots, filter)],
  };
}

function isShown(host, filter) {
  // What an unknown host has now, nobody knows: it may be what is looked for.
  return !filter || host.state !== "ok" || host.host.toLowerCase().includes(filter) ||
    (host.slots || []).some((slot) => matches(slot, filter));
}

function drawFleet(fleet) {
  byId("fleet").hidden = !fleet;
  byId("here").textContent = fleet ? " of this host" : "";
  byId("filter").placeholder = `user, container${fleet ? ", slot or host" : " or slot"}`;
  if (!fleet) return;
  if (!fleet.total) {
    byId("hosts").replaceChildren(sentence(`not known: ${fleet.error || "no answer yet"}`));
    return;
  }
  const filter = filterText();
  const rows = fleet.hosts.filter((host) => isShown(host, filter)).map((host) => hostRow(fleet, host, filter));
  const columns = [["Host"], ["State"], ["As of"], ["Slots", "number"], ["Free", "number"], ["Free by type"], ["Who", "who"]];
  const { hosts, unknown, slots, free } = fleet.total;
  const known = hosts - unknown;
  const total = `${free} of ${slots} slots free on ${known === 1 ? "1 host" : `${known} hosts`}`;
  byId("hosts").replaceChildren(rows.length ? table("", columns, rows) : sentence("no host matches the filter"),
    make("p", {}, total, unknown ? toned("warn", unknown === 1 ? "; 1 host unknown" : `; ${unknown} hosts unknown`) : ""));
}
