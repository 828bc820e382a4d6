/* The filters of the table of results: which there are, and which results they let through. */

const FILTERS = ["norm", "precision", "implementation", "mode"];
let haystack = null;

/* What the text filter looks into, made when it is first used. */
function searched() {
  const names = ["verdict", "layer", ...FILTERS, "rules", "headroom_step"];
  haystack ??= Array.from({ length: table.count }, (_, index) => names.map((name) => text(name, index)).join(" ").toLowerCase());
  return haystack;
}

/* A glob as the command line has them: * is any text, ? any character, [abc] one of some, [!abc] any other. */
function glob(pattern) {
  const source = pattern.replace(/\[(!|(?!!))(\]?[^\]]+|\])\]|\*+|\?|[\\^$.|+(){}[\]]/g, (part, not, set) => {
    if (set !== undefined) return `[${not && "^"}${set.replace(/[\\^[\]]/g, "\\$&")}]`;
    return { "*": "\0", "?": "." }[part[0]] ?? `\\${part}`;
  });
  const [first, ...others] = source.split("\0");
  const last = others.length ? `.*${others.pop()}` : "";
  // What stands between two stars is taken where it is found first, for good: many stars would else try for hours.
  const between = others.map((each, place) => `(?=(.*?${each}))\\${place + 1}`).join("");
  try {
    return new RegExp(`^${first}${between}${last}$`, "is");
  } catch {
    return /(?!)/; // a range such as [z-a] is of nothing
  }
}

/* Whether a result has a word of the text filter; a glob is of the whole name of a layer, without layers of a norm. */
function matching(word) {
  if (!/[*?]/.test(word)) return (index) => searched()[index].includes(word);
  const [pattern, { values, at }] = [glob(word), table.text[layered() ? "layer" : "norm"]];
  const found = values.map((value) => pattern.test(value));
  return (index) => found[at[index]];
}

const layered = () => table.text.layer.values.some(Boolean);

/* The values of the boxes of a group that are ticked. */
const ticked = (id) => new Set([...document.querySelectorAll(`#${id} input:checked`)].map((box) => Number(box.value)));

/* Whether a result is one of those chosen, apart from the boxes: verdict and view. */
function wanted() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean).map(matching);
  const chosen = FILTERS.map((name) => [table.text[name].at, byId(`only-${name}`)?.value]).filter(([, value]) => value);
  const [severity, rule] = [byId("only-severity").value, byId("only-rule").value];
  // What fired on a result is one of few sets of rules: each is looked into once.
  const fits = (each) => each && (!severity || each.startsWith(`${severity} `)) && (!rule || each.endsWith(` ${rule}`));
  const some = (set) => (severity === "none" ? !set && !rule : set.split("|").some(fits));
  const fitting = table.text.rules.values.map((set) => (!severity && !rule) || some(set));
  return (index) =>
    fitting[table.text.rules.at[index]] &&
    chosen.every(([at, value]) => at[index] === Number(value)) &&
    words.every((has) => has(index));
}

/* The results that are chosen. Beside each box stands how many there are of the other filters' results. */
function filtered() {
  const [keep, verdicts, views] = [wanted(), ticked("verdicts"), ticked("views")];
  const counts = { verdicts: [0, 0, 0], views: [0, 0] };
  const rows = [];
  for (let index = 0; index < table.count; index += 1) {
    if (!keep(index)) continue;
    const [verdict, view] = [table.text.verdict.at[index], Number(unasked.has(index))];
    if (views.has(view)) counts.verdicts[verdict] += 1;
    if (verdicts.has(verdict)) counts.views[view] += 1;
    if (views.has(view) && verdicts.has(verdict)) rows.push(index);
  }
  for (const [id, many] of Object.entries(counts)) {
    for (const box of document.querySelectorAll(`#${id} input`)) box.nextElementSibling.textContent = count(many[box.value]);
  }
  return rows;
}

function option(value, name) {
  return make("option", { value: String(value) }, name);
}

/* A box to tick; after its words stands how many results it is about. */
function box(value, words, look, attributes) {
  const input = make("input", { type: "checkbox", value: String(value), ...attributes });
  return make("label", { class: `chip ${look}` }, input, ` ${words} `, make("span"));
}

/* Which values there are; a choice of one is none. */
function buildFilters() {
  table.text.verdict.values.forEach((word, code) => {
    if (!table.text.verdict.at.includes(code)) return;
    byId("verdicts").append(box(code, `${verdictSigns[word]} ${word}`, word, { defaultChecked: true }));
  });
  const select = (name, options, least = 2) => {
    const choice = make("select", { id: `only-${name}` }, option("", "any"), ...options);
    byId("selects").append(make("label", { hidden: options.length < least }, `${name} `, choice));
  };
  for (const name of FILTERS) select(name, table.text[name].values.map((value, code) => option(code, value)));
  select("severity", [...Object.keys(severitySigns), "none"].map((name) => option(name, name)));
  select("rule", codes().map((code) => option(code, code)), 1);
  const mixed = unasked.size > 0 && unasked.size < table.count;
  byId("views").hidden = !mixed;
  byId("views").append(
    box(0, "asked for", "", { id: "asked", defaultChecked: true }),
    box(1, "not asked for", "", { id: "unasked", defaultChecked: !mixed }));
}

/* The rules that fired on some result. */
function codes() {
  const fired = table.text.rules.values.flatMap((set) => set.split("|")).filter(Boolean);
  return [...new Set(fired.map((each) => each.split(" ")[1]))].sort();
}

/* Shows the results on which a rule fired with a severity, of the view that its findings are of. */
function find({ find: code, severity, view }) {
  byId("filters").reset();
  byId("only-rule").value = code;
  byId("only-severity").value = severity;
  const mixed = !byId("views").hidden;
  byId("asked").checked = !mixed || view === "asked";
  byId("unasked").checked = !mixed || view === "unasked";
  update();
  if (!state.rows.length) byId("unasked").checked = true; // some findings are of a layer, however it is computed
  update();
  byId("results").scrollIntoView();
  byId("only-rule").focus({ preventScroll: true });
}
