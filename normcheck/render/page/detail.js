/* What is shown of a result that is opened: picture, findings, facts, steps, deviation and worst rows. */

function panel(index) {
  const detail = blocks.results.get(index);
  const layer = table.layer_of[index] >= 0 ? blocks.layers.get(table.layer_of[index]) : [];
  const facts = table.facts.map((title, place) => [title, detail.facts[place]]).filter(([, value]) => value);
  const room = Math.min(1000, Math.max(300, byId("table").parentElement.clientWidth - 48));
  const inside = make("div", { class: "detail" },
    ...(detail.exponents || detail.steps.length ? [pictured(detail, text("precision", index), room)] : []),
    section("Findings", findingsOf(detail)),
    make("div", { class: "columns" },
      section("Result", definitions(facts)), layer.length ? section("Layer", definitions(layer)) : ""),
    section("Steps", stepsOf(detail)),
    make("div", { class: "columns" },
      section("Deviation", deviationOf(detail)), section(`Worst ${detail.noun}s`, worstOf(detail))),
    ...backwardOf(detail.backward));
  const about = make("td", { colspan: String(shownColumns.length) }, inside);
  return make("tr", { class: "panel-row" }, about);
}

function backwardOf(backward) {
  if (!backward) return [];
  return [section("Backward", definitions(backward.facts)), section("Steps of the backward pass", stepsOf(backward))];
}

function pictured(detail, precision, room) {
  const [drawing, said] = picture(detail, precision, table.formats, room);
  return make("figure", {}, drawing, make("figcaption", {}, said));
}

const section = (title, content) => (content ? make("section", {}, make("h3", {}, title), content) : "");

function definitions(pairs) {
  const pair = ([title, value]) => make("div", {}, make("dt", {}, title), make("dd", {}, value));
  return make("dl", { class: "pairs" }, ...pairs.map(pair));
}

function findingsOf(detail) {
  if (!detail.findings.length) return null;
  return make("ul", { class: "found" }, ...detail.findings.map((place) => {
    const [severity, , message, code, fix, condition] = blocks.findings.get(place);
    const rule = make("b", {}, table.rule_titles[code] ?? "");
    return make("li", {}, marked(severity, severitySigns), ` ${code} `, rule, make("small", {}, condition && ` only ${condition}`),
      make("p", {}, message), ...(fix ? [make("p", {}, make("b", {}, "Fix "), fix)] : []));
  }));
}

/* A table of figures, in a box of its own that scrolls where it is too wide. */
function grid(heads, rows) {
  const head = make("thead", {}, make("tr", {}, ...heads.map((title) => make("th", { scope: "col" }, title))));
  const cell = (each) => make("td", each === "0" ? { class: "zero" } : {}, each);
  const body = rows.map((cells) => make("tr", {}, ...cells.map(cell)));
  return make("div", { class: "scroll", tabIndex: 0 }, make("table", { class: "grid" }, head, make("tbody", {}, ...body)));
}

function stepsOf(detail) {
  if (!detail.steps.length) return null;
  const heads = ["step", "format", "degree", "operations", ...table.events, "lost mass", "largest", "smallest"];
  const cells = ([step, format, degree, operations, max, min, lost, ...events]) => {
    const all = table.events.map((_, place) => (operations ? figure(events[place] ?? 0) : "–"));
    const [largest, smallest] = operations ? [max, min] : [null, null];
    return [step, format, figure(degree), count(operations), ...all, figure(lost), figure(largest), figure(smallest)];
  };
  return grid(heads, detail.steps.map(cells));
}

function deviationOf(detail) {
  if (detail.deviation.every((value) => value === null)) return null;
  const cells = (name, place) => [name.replaceAll("_", " "), figure(detail.deviation[place]), figure(detail.ideal[place])];
  return grid(["figure", "this", "ideal"], table.deviations.map(cells));
}

function worstOf(detail) {
  if (!detail.worst.length) return null;
  const heads = [detail.noun, "kind", "exact statistic", "computed", "first bad step"];
  const cells = ([at, kind, exact, found, step]) => [String(at), kind, figure(exact), figure(found), step || "–"];
  return grid(heads, detail.worst.map(cells));
}
