// What the page is built of. Names and reasons are written by users: they are only ever set as text,
// with characters that cannot be seen escaped, and each is isolated from its surroundings.

const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu;
const byId = (id) => document.getElementById(id);
let offset = 0; // the server's clock less ours, in ms

function printable(value) {
  return String(value).replace(INVISIBLE, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);
}

const isEmpty = (value) => value === undefined || value === null || value === "";

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (!isEmpty(value)) element.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) {
    if (!isEmpty(child)) element.append(child instanceof Node ? child : printable(child));
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
      const parts = [cell].flat().filter((part) => !isEmpty(part));
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
