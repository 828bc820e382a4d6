/* The table of results, their details and the lists. All data is in blocks of this page; whatever comes from it is
   put in as text, never as markup. Rows are made in windows: only what is looked at is in the document. */

const WINDOW = 100;

// ------------------------------------------------------------------------------------------------ small helpers

const byId = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in node && typeof value !== "string") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/* A figure as text: "–" where there is none, strings ("inf", "nan") as they are. */
function figure(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value.replace("-", "−");
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential().replace("e+", "e") : String(value);
  return text.replaceAll("-", "−");
}

const count = String;

/* A block of lines of JSON, each parsed when it is asked for. */
class Lines {
  constructor(name) {
    this.name = name;
  }

  get(index) {
    this.lines ??= byId(`data-${this.name}`).textContent.split("\n");
    return JSON.parse(this.lines[index]);
  }
}

const blocks = Object.fromEntries(["results", "layers", "findings", "changes"].map((name) => [name, new Lines(name)]));
const table = new Lines("table").get(0);
const verdictSigns = { unsafe: "✕", degraded: "▲", ok: "✓" };
const severitySigns = { error: "✕", warning: "▲", note: "i" };

// ---------------------------------------------------------------------------------------------------- columns

const text = (name, index) => table.text[name].values[table.text[name].at[index]];
const cell = (name, index) => table.figures[name][index];
const share = (part, whole) => (index) => cell(part, index) / Math.max(cell(whole, index), 1);
const partOf = (part, whole) => (index) => [`${count(cell(part, index))} of ${count(cell(whole, index))}`];

/* The order of a column of text: the rank of each different one, found once. The verdict's are in order already. */
function ranks(name) {
  const { values, at } = table.text[name];
  const order = values.map((_, index) => index);
  const { compare } = new Intl.Collator("en", { numeric: true });
  if (name !== "verdict") order.sort((a, b) => compare(values[a], values[b]));
  const rank = [];
  order.forEach((value, place) => (rank[value] = place));
  return (index) => rank[at[index]];
}

const worded = (name, show = (index) => [text(name, index)]) => ({ name, show, words: true });
const figured = (name, key, show = (index) => [figure(key(index))]) => ({ name, key, show });

function columns() {
  const all = [
    worded("verdict", (index) => [marked(text("verdict", index), verdictSigns)]),
    worded("layer"),
    worded("norm"),
    worded("precision"),
    worded("implementation", computed),
    worded("mode"),
    figured("bad rows", share("bad", "rows"), partOf("bad", "rows")),
    figured("overflow", share("overflow", "operations"), partOf("overflow", "operations")),
    figured("deviation", (index) => cell("deviation", index)),
    figured("× ideal", (index) => cell("multiple", index)),
    figured("headroom", (index) => cell("headroom", index), room),
    figured("safe scale", (index) => (cell("high", index) === "none" ? -1 : cell("high", index)), safe),
    worded("rules", rules),
  ];
  return all.filter((column) => column.name !== "layer" || layered());
}

function computed(index) {
  return [text("implementation", index), ...(unasked.has(index) ? [make("small", {}, " not asked for")] : [])];
}

function marked(word, signs) {
  return make("span", { class: `badge ${word}` }, make("span", { "aria-hidden": "true" }, `${signs[word]} `), word);
}

function room(index) {
  const bits = cell("headroom", index);
  if (bits === null) return ["–"];
  const step = text("headroom_step", index);
  return [`${figure(bits)} bits`, ...(step ? [make("small", {}, ` at ${step}`)] : [])];
}

function safe(index) {
  const [low, high] = [cell("low", index), cell("high", index)];
  return [typeof low === "number" ? `${figure(low)} to ${figure(high)}` : figure(high)];
}

function rules(index) {
  return fired(index).flatMap(([severity, code]) => {
    const sign = make("span", { "aria-hidden": "true" }, `${severitySigns[severity]} `);
    const title = `${severity}: ${table.rule_titles[code] ?? code}`;
    const said = make("span", { class: "hidden" }, `${severity} `);
    return [make("span", { class: `rule ${severity}`, title }, sign, said, code), " "];
  });
}

const fired = (index) => text("rules", index).split("|").filter(Boolean).map((each) => each.split(" "));

// ------------------------------------------------------------------------------------------- filter and order

const unasked = new Set(table.unasked);
const state = { column: null, down: false, shown: WINDOW, open: new Set(), rows: [] };
let shownColumns = [];

/* Rows are in the data worst first; what is no number, and infinities, come last whichever way the order goes. */
function ordered(rows) {
  if (!state.column) return rows;
  const key = state.column.words ? (state.ranks[state.column.name] ??= ranks(state.column.name)) : state.column.key;
  const way = state.down ? -1 : 1;
  const keys = new Map(rows.map((index) => [index, key(index)]));
  const last = (value) => (Number.isFinite(value) ? 0 : { inf: 1, "-inf": 2, nan: 3 }[value] ?? 4);
  return rows.sort((a, b) => {
    const [one, other] = [keys.get(a), keys.get(b)];
    return last(one) - last(other) || (last(one) ? 0 : way * (one - other)) || a - b;
  });
}

function update() {
  state.rows = ordered(filtered());
  state.shown = WINDOW;
  byId("shown").textContent = `${count(state.rows.length)} of ${count(table.count)} results`;
  byId("table").tBodies[0].replaceChildren();
  further(0);
  for (const head of document.querySelectorAll("#table th")) {
    const sorted = shownColumns[head.cellIndex] === state.column;
    head.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
  }
}

/* Adds the rows from a place on, up to as many as are shown. */
function further(from) {
  byId("table").tBodies[0].append(...state.rows.slice(from, state.shown).flatMap(rowsOf));
  const left = state.rows.length - state.shown;
  byId("further").hidden = left <= 0;
  byId("further").textContent = `show ${Math.min(WINDOW, left)} more of ${count(left)}`;
}

// ------------------------------------------------------------------------------------------------------- rows

function rowsOf(index) {
  const name = shownColumns.some((column) => column.name === "layer") ? "layer" : "norm";
  const opened = state.open.has(index);
  const row = make("tr", { class: opened ? "result open" : "result", "data-index": String(index) });
  for (const column of shownColumns) {
    const content = column.show(index);
    const button = { type: "button", class: "opens name", "aria-expanded": String(opened) };
    const [element, attributes] = column.name === name ? ["button", button] : ["div", {}];
    const inside = make(element, attributes, ...(content[0] === "" ? ["–"] : content));
    row.append(make("td", { "data-title": column.name, class: column.words ? column.name : "number" }, inside));
  }
  return opened ? [row, panel(index)] : [row];
}

function toggle(row, open = !row.classList.contains("open")) {
  const index = Number(row.dataset.index);
  if (open === row.classList.contains("open")) return;
  row.classList.toggle("open", open);
  row.querySelector(".opens").setAttribute("aria-expanded", String(open));
  if (open) {
    state.open.add(index);
    row.after(panel(index));
  } else {
    state.open.delete(index);
    row.nextElementSibling.remove();
  }
}

// --------------------------------------------------------------------------------------------------- controls

function buildHead() {
  byId("table").tHead.rows[0].append(...shownColumns.map((column) => {
    const button = make("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      // Figures begin with the largest, words with the first.
      state.down = state.column === column ? !state.down : !column.words;
      state.column = column;
      update();
    });
    return make("th", { scope: "col", class: column.words ? column.name : "number" }, button);
  }));
}

function buildTable() {
  state.ranks = {};
  shownColumns = columns();
  buildFilters();
  buildHead();
  const form = byId("filters");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("input", update);
  // Not for the text: leaving it for a row is a change, and the row must still be there when the click ends.
  form.addEventListener("change", (event) => event.target.id !== "filter" && update());
  form.addEventListener("reset", () => setTimeout(update));
  byId("worst").addEventListener("click", () => {
    state.column = null;
    update();
  });
  byId("further").addEventListener("click", () => {
    state.shown += WINDOW;
    further(state.shown - WINDOW);
  });
  byId("table").tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr.result");
    // Text of a row can be marked without opening it.
    if (row && (event.target.closest(".opens") || !String(getSelection()))) toggle(row);
  });
  for (const button of document.querySelectorAll("button.find")) {
    button.hidden = !codes().includes(button.dataset.find);
    button.addEventListener("click", () => find(button.dataset));
  }
  update();
}

/* Lists whose first items are in the page have the others in a block. */
function more(button) {
  const { block, from, to, alike } = button.dataset;
  const end = Math.min(Number(from) + WINDOW, Number(to));
  for (let place = Number(from); place < end; place += 1) {
    const [mark, where, message, figures] = blocks[block].get(place);
    const item = make("li", {}, ...(block === "changes" ? [make("b", { class: "mark" }, mark), " "] : []));
    item.append(make("span", { class: "where" }, where));
    if (alike === undefined) item.append(" ", make("span", { class: "says" }, message));
    if (block === "changes" && figures) item.append(" ", make("span", { class: "figures" }, figures));
    button.previousElementSibling.append(item);
  }
  button.dataset.from = String(end);
  button.hidden = end >= Number(to);
  button.textContent = `show more, ${count(Number(to) - end)} left`;
}

/* Selects the text, which needs no permission, and copies it where the browser lets a page do that. */
function copy(button) {
  getSelection().selectAllChildren(button.nextElementSibling);
  let copied = false;
  try {
    copied = document.execCommand("copy");
  } catch {
    copied = false;
  }
  button.textContent = copied ? "copied" : "selected: press Ctrl+C";
}

function theme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const button = byId("theme");
  const name = () => (button.textContent = dark() ? "light colours" : "dark colours");
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();
}

/* "/" goes to the filter, arrows (or j and k) from result to result, Escape closes. */
function keys(event) {
  const typing = event.target.closest("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !typing && byId("filter")) {
    event.preventDefault();
    byId("filter").focus();
  } else if (event.key === "Escape") {
    close(event.target);
  } else if (event.target.matches(".opens") && ["ArrowDown", "ArrowUp", "j", "k"].includes(event.key)) {
    event.preventDefault();
    const buttons = [...document.querySelectorAll(".opens")];
    buttons[buttons.indexOf(event.target) + (["ArrowDown", "j"].includes(event.key) ? 1 : -1)]?.focus();
  }
}

/* Closes the detail that has the focus, else the last one; in the filter, clears it. */
function close(focused) {
  if (focused.id === "filter" && focused.value) {
    focused.value = "";
    return update();
  }
  const inside = focused.closest("tr.panel-row")?.previousElementSibling ?? focused.closest("tr.result.open");
  const row = inside ?? [...document.querySelectorAll("tr.result.open")].at(-1);
  if (!row) return undefined;
  toggle(row, false);
  return row.querySelector(".opens").focus();
}

if (table.count) buildTable();
theme();
document.addEventListener("keydown", keys);
for (const button of document.querySelectorAll("button.more")) button.addEventListener("click", () => more(button));
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
