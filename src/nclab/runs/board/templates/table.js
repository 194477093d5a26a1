// The table: filters, order, and which runs are drawn. Names from users enter the page by textContent alone.
"use strict";
const board = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const STEP = 50; // rows that are laid out at once: a browser takes a second for thousands
const MOST = board.colours.length; // runs that are drawn at once: each has a colour of its own
const SIGNS = { done: "✔", running: "▶", queued: "…", submitted: "…", interrupted: "■", failed: "✘", unreadable: "?" };
const NAMES = { "nc1": "nc1 (train)" }; // columns that say more than their name
const place = new Map(board.columns.map((column, i) => [column.name, i]));
const columns = board.columns.filter((column, i) => board.rows.some((cells) => cells[i] !== null && cells[i] !== ""));
const rows = board.rows.map((cells, index) => ({ index, cells, text: cells.join(" ").toLowerCase() }));
const order = new Intl.Collator("en", { numeric: true });
const cell = (index, name) => board.rows[index][place.get(name)];

const KEY = `nclab board ${location.pathname}`;
function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // a browser that keeps nothing of files
  }
}
const state = { filters: {}, text: "", sort: null, paths: null, again: true, ...remembered() };
function remember() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(state));
  } catch {} // likewise
}
const byPath = new Map(board.paths.map((path, index) => [path, index]));
// At first two runs that show something to compare: of one experiment and seed, with different policies.
function twoOf() {
  const drawn = rows.filter(({ index }) => board.drawn[index]).map(({ index }) => index);
  if (!drawn.length) return [];
  const same = (name) => (index) => cell(index, name) === cell(drawn[0], name);
  const other = drawn.find((index) => ["experiment", "seed", "dataset", "model"].every((name) => same(name)(index)) && !same("policy")(index));
  return other === undefined ? [drawn[0]] : [drawn[0], other];
}
const chosen = new Set(state.paths ? state.paths.map((path) => byPath.get(path)).filter((index) => index !== undefined) : twoOf());
let shown = STEP;
let matching = rows;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function choose(index, wanted) {
  if (wanted && chosen.size >= MOST) {
    $("note").textContent = `At most ${MOST} runs are drawn at once: each has a colour of its own.`;
    show();
    return;
  }
  $("note").textContent = "";
  wanted ? chosen.add(index) : chosen.delete(index);
  chose();
}

function chose() {
  state.paths = [...chosen].map((index) => board.paths[index]);
  remember();
  show();
  document.dispatchEvent(new Event("chosen"));
}

function find() {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = Object.entries(state.filters).filter(([, value]) => value !== "");
  matching = rows.filter(({ cells, text }) =>
    wanted.every(([name, value]) => String(cells[place.get(name)] ?? "") === value) && words.every((word) => text.includes(word)));
  if (state.sort) {
    const [name, direction] = state.sort;
    const at = place.get(name);
    const empty = (value) => value === null || value === "";
    const compare = board.columns[at].number ? (a, b) => a - b : order.compare;
    matching.sort(({ cells: { [at]: a } }, { cells: { [at]: b } }) =>
      empty(a) || empty(b) ? empty(a) - empty(b) : direction * compare(a, b)); // without a number last, both ways
  }
  shown = STEP;
  show();
}

function drawnRow({ index, cells }) {
  const box = element("input", { type: "checkbox", checked: chosen.has(index), disabled: !board.drawn[index] });
  box.setAttribute("aria-label", `draw ${cells[place.get("run")]}`);
  box.addEventListener("change", () => choose(index, box.checked));
  const drawn = columns.map(({ name, number }) => {
    const value = cells[place.get(name)];
    const text = name === "state" ? `${SIGNS[value]} ${value}` : String(value ?? "");
    const title = name === "settings" || name === "why" ? text : "";
    return element("td", { title, className: name === "state" ? value : `${name}${number ? " number" : ""}`, textContent: text });
  });
  return element("tr", {}, element("td", {}, box), ...drawn);
}

function show() {
  $("body").replaceChildren(...matching.slice(0, shown).map(drawnRow));
  for (const head of $("head").children) {
    const mine = state.sort && head.dataset.name === state.sort[0];
    head.setAttribute("aria-sort", mine ? (state.sort[1] > 0 ? "ascending" : "descending") : "none");
  }
  tell();
}

function tell() {
  $("found").textContent = `${matching.length} of ${rows.length} runs; ${chosen.size} drawn`;
  $("more").hidden = matching.length <= shown;
  $("more").textContent = `show ${Math.min(STEP, matching.length - shown)} more`;
}

$("counts").textContent = board.counts;
$("written").textContent = board.written;
$("head").append(element("th", { textContent: "draw" }));
for (const { name, number, filter } of columns) {
  const button = element("button", { type: "button", textContent: NAMES[name] ?? name });
  button.addEventListener("click", () => {
    const first = number && name !== "seed" ? -1 : 1; // the largest number first, the first name first
    const [before, direction] = state.sort ?? [];
    state.sort = before === name ? [name, -direction] : [name, first];
    remember();
    find();
  });
  const head = element("th", {}, button);
  head.dataset.name = name;
  $("head").append(head);
  const values = [...new Set(rows.map(({ cells }) => String(cells[place.get(name)] ?? "")))].sort(order.compare);
  if (!filter || values.length < 2) continue;
  const select = element("select", { name }, element("option", { value: "", textContent: "all" }));
  for (const value of values.filter(Boolean)) select.append(element("option", { value, textContent: value }));
  select.value = state.filters[name] ?? "";
  if (select.selectedIndex < 0) select.value = state.filters[name] = ""; // its runs are gone
  select.addEventListener("change", () => {
    state.filters[name] = select.value;
    remember();
    find();
  });
  $("filters").insertBefore(element("label", { textContent: name }, select), $("text").parentElement);
}
$("text").value = state.text;
$("text").addEventListener("input", () => {
  state.text = $("text").value;
  remember();
  find();
});
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("reset").addEventListener("click", () => {
  state.filters = {};
  state.text = $("text").value = "";
  for (const select of $("filters").querySelectorAll("select")) select.value = "";
  remember();
  find();
});
$("clear").addEventListener("click", () => {
  chosen.clear();
  chose();
});
$("more").addEventListener("click", () => {
  $("body").append(...matching.slice(shown, shown + STEP).map(drawnRow));
  shown += STEP;
  tell();
});
if (board.reload) {
  $("live").hidden = false;
  $("seconds").textContent = board.reload;
  $("again").checked = state.again;
  $("again").addEventListener("change", () => {
    state.again = $("again").checked;
    remember();
  });
}
find();

// Not before all is drawn: a slow machine would load the page again and again, and show nothing.
function loadAgain() {
  if (board.reload) setInterval(() => state.again && location.reload(), 1000 * board.reload);
}
