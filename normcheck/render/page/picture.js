"use strict";

/* The picture of a result: the input's magnitudes against the range of its format, and each step's against its own.
   The x axis is log2 of the magnitude. Figures are numbers, or the strings "inf", "-inf" and "nan". */

const SVG = "http://www.w3.org/2000/svg";
/* A limit this many binades beyond all values is named at the edge instead of drawn: it would squeeze everything. */
const FAR = 64;

function shape(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const log2 = (value) => (value === "inf" ? Infinity : typeof value === "number" && value > 0 ? Math.log2(value) : NaN);

const round1 = (value) => String(Math.round(value * 10) / 10);

/* The width of the widest of some texts, as the page's own style draws them. */
function widest(texts, look = "strong") {
  const ruler = shape("svg", { class: "picture" }, ...texts.map((each) => shape("text", { class: look }, each)));
  document.body.append(ruler);
  const sizes = [...ruler.children].map((each) => each.getComputedTextLength());
  ruler.remove();
  return Math.ceil(Math.max(0, ...sizes));
}

/* Text that has its room: a longer one loses its end, which the table of steps and the sentence beneath have. */
function fitted(text, room, look) {
  let shown = text;
  for (let size = widest([shown], look); size > room && shown.length > 1; size = widest([shown], look)) {
    shown = `${shown.slice(0, Math.min(shown.length - 2, Math.floor((shown.length * room) / size)))}…`;
  }
  return shown;
}

/* "2^-24" with a raised exponent. */
const power = (exponent, attributes) => shape("text", attributes, "2", lifted(exponent));

const lifted = (exponent) => shape("tspan", { dy: "-4", "font-size": "80%" }, String(exponent).replace("-", "−"));

/* The values of the picture: where steps begin and end, and their formats. `reach`: of the step that headroom is
   about, where its largest magnitude would be had its format no end; headroom is by definition counted from there. */
function spans(detail, formats) {
  const [bits, first] = detail.headroom;
  return detail.steps.map(([name, format, degree, operations, max, min]) => {
    const own = formats.find((each) => each.name === format) ?? { label: format };
    const high = log2(max);
    const low = Number.isFinite(log2(min)) ? log2(min) : high;
    const bounded = name === first && own.ends && typeof bits === "number" && degree > 0;
    const reach = bounded ? own.ends[2] - bits * degree : NaN;
    return { name, degree, max, low, high, format: own, reach, rounds: operations > 0 };
  });
}

/* The magnitudes that the picture spans: all values, and the limits of the input's format that are not far off. */
function domain(detail, steps, format) {
  const [lowest, counts] = detail.exponents ?? [0, []];
  const values = [...(counts.length ? [lowest, lowest + counts.length] : [])];
  for (const step of steps) values.push(...[step.low, step.high, step.reach].filter(Number.isFinite));
  const limits = [...(format?.ends ?? [])];
  for (const step of steps) if (Number.isFinite(step.reach)) limits.push(step.format.ends[2]);
  if (!values.length) values.push(...(format?.ends.map((end) => Math.max(-FAR, Math.min(FAR, end))) ?? [-8, 8]));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const near = limits.filter((end) => end > low - FAR && end < high + FAR);
  low = Math.min(low, ...near);
  high = Math.max(high, ...near);
  const margin = Math.max(2, (high - low) / 12);
  return [Math.floor(low - margin), Math.ceil(high + margin)];
}

const isZero = (step) => step.rounds && step.max === 0;

/* What the picture says, for those who do not see it, and for the line under it. */
function described(detail, steps, format) {
  const [lowest, counts, zeros, nonfinite] = detail.exponents ?? [];
  const told = [];
  if (!counts) told.push("How large the input's elements are was not kept.");
  else if (!counts.length) told.push("No element of the input is finite and not zero.");
  else told.push(`The input's magnitudes go from 2^${lowest} to 2^${lowest + counts.length}.`);
  const elements = (many) => (many === 1 ? "1 element is" : `${many} elements are`);
  if (zeros) told.push(`${elements(zeros)} 0.`);
  if (nonfinite) told.push(`${elements(nonfinite)} not finite.`);
  if (format) {
    const [subnormal, normal, over] = format.ends.map(round1);
    told.push(`${format.label} overflows from 2^${over}, is subnormal below 2^${normal},`, `and its smallest number is 2^${subnormal}.`);
  }
  const kinds = { Infinite: (step) => step.high === Infinity, "All 0": isZero, "No rounding": (step) => !step.rounds };
  for (const [kind, is] of Object.entries(kinds)) {
    const names = steps.filter(is).map((step) => step.name);
    if (names.length) told.push(`${kind}: ${names.join(", ")}.`);
  }
  for (const { name, high, format: own } of steps) {
    if (own.ends && high >= own.ends[2] && high < Infinity) told.push(`${name} reaches 2^${round1(high)}, beyond ${own.label}.`);
  }
  const [bits, step] = detail.headroom;
  if (typeof bits === "number") told.push(`Headroom is ${figure(bits)} bits${step ? ` at ${step}` : ""}.`);
  return told.join(" ").replaceAll("^-", "^−");
}

/* Returns the drawing and what it says. */
function picture(detail, precision, formats, width) {
  const format = formats.find((each) => each.label === precision);
  const steps = spans(detail, formats);
  const [low, high] = domain(detail, steps, format);
  const area = measured(width, [low, high], steps, format, precision);
  const text = described(detail, steps, format);
  const label = `picture-${picture.count = (picture.count ?? 0) + 1}`;
  const svg = shape("svg", { class: "picture", role: "img", "aria-labelledby": label, "aria-describedby": `${label}-text` });
  svg.append(shape("title", { id: label }, "Magnitudes of the input and of each step, against the formats' ranges"));
  svg.append(shape("desc", { id: `${label}-text` }, text));
  let top = histogram(svg, area, detail.exponents, format, precision);
  for (const step of steps) top = bar(svg, area, step, detail, top);
  svg.setAttribute("viewBox", `0 0 ${width} ${top + 6}`);
  svg.setAttribute("width", width);
  return [svg, text];
}

/* The measures of a drawing: x(exponent) and its ends, whether labels have no room beside the bars (narrow), and
   whether the zones' names have none beside each other (tight). */
function measured(width, [low, high], steps, format, precision) {
  const [before, after] = [widest(labels(steps, precision)) + 14, widest(asides(steps, [low, high], format)) + 10];
  const narrow = width < 600 || before > width / 3 || after > width / 4;
  const [left, right] = narrow ? [4, width - 4] : [before, width - after];
  const x = (exponent) => left + ((Math.max(low, Math.min(high, exponent)) - low) / (high - low)) * (right - left);
  return { x, low, high, left, right, width, narrow, tight: width < 900 };
}

/* What stands at the left of the bars. */
function labels(steps, precision) {
  return ["elements a binade,", `against ${precision}`, ...steps.map((step) => `${step.name} ${step.format.label}`)];
}

/* What stands at the right of the bars. */
function asides(steps, ends, format) {
  return [...farOff(ends, format).map((each) => each.join("")), ...steps.map(noted)];
}

/* The shaded zones of a range, each between two exponents, with their names. */
function zones(area, [subnormal, normal, over]) {
  return [
    { kind: "lost", from: area.low, to: subnormal, name: "too small", anchor: "start" },
    { kind: "subnormal", from: subnormal, to: normal, name: "subnormal", anchor: "middle" },
    { kind: "over", from: over, to: area.high, name: "overflow", anchor: "end" },
  ];
}

function histogram(svg, area, exponents, format, precision) {
  const { x, left, right, narrow } = area;
  const [top, height] = [narrow ? 46 : area.tight ? 32 : 20, 110];
  const base = top + height;
  svg.append(shape("rect", { class: "panel", x: left, y: top, width: right - left, height }));
  if (format) for (const zone of zones(area, format.ends)) shaded(svg, area, zone, top, height);
  const [lowest, counts] = exponents ?? [0, []];
  const scale = height / Math.log(1 + Math.max(1, ...counts)) * 0.94;
  counts.forEach((many, index) => {
    const from = x(lowest + index);
    const size = Math.log(1 + many) * scale;
    const wide = Math.max(x(lowest + index + 1) - from - 1, 0.8);
    const says = shape("title", {}, `2^${lowest + index} to 2^${lowest + index + 1}: ${many} elements`);
    svg.append(shape("rect", { class: "count", x: from + 0.5, y: base - size, width: wide, height: size }, says));
  });
  const say = (text, x, y, more = {}) => svg.append(shape("text", { class: "dim", x, y, ...more }, text));
  if (!counts.length) {
    const why = exponents ? "no finite element but zeros" : "no histogram was kept";
    say(why, (left + right) / 2, top + 60, { "text-anchor": "middle" });
  }
  ticks(svg, area, base);
  if (narrow) say(fitted(`input in ${precision}, elements a binade, log scale`, right - left, "dim"), left, 11);
  else {
    say("input", 0, top + 14, { class: "strong" });
    say(`against ${precision}`, 0, top + 29);
    say("elements a binade,", 0, top + 44);
    say("log scale", 0, top + 58);
    offscale(svg, area, format, top);
  }
  svg.append(shape("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }));
  return base + 26;
}

function shaded(svg, area, { kind, from, to, name, anchor }, top, height) {
  const [start, end] = [area.x(from), area.x(to)];
  if (end - start < 0.5) return;
  svg.append(shape("rect", { class: `zone ${kind}`, x: start, y: top, width: end - start, height }, shape("title", {}, name)));
  const look = `zone-name ${kind}`;
  const half = widest([name], look) / 2;
  const middle = { start: start + half, middle: (start + end) / 2, end: end - half }[anchor];
  const at = Math.max(half, Math.min(middle, area.width - half));
  const line = area.tight && kind === "subnormal" ? top - 18 : top - 6;
  svg.append(shape("text", { class: look, x: at, y: line, "text-anchor": "middle" }, name));
}

/* What is said of limits beyond the picture: words, and of what power of 2. */
function farOff([low, high], format) {
  if (!format) return [["range not known"]];
  const [subnormal, , over] = format.ends;
  const told = [];
  if (over > high) told.push(["overflow from 2", Math.round(over)]);
  if (subnormal < low) told.push(["range down to 2", Math.round(subnormal)]);
  return told;
}

/* Where a limit is beyond the picture, it is named at the right. */
function offscale(svg, area, format, top) {
  farOff([area.low, area.high], format).forEach(([words, exponent], place) => {
    const raised = exponent === undefined ? [] : [lifted(exponent)];
    svg.append(shape("text", { class: "dim", x: area.right + 8, y: top + 14 + 18 * place }, words, ...raised));
  });
}

function ticks(svg, { x, low, high, left, right }, base) {
  const steps = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 256];
  const apart = steps.find((each) => (each / (high - low)) * (right - left) > 44) ?? 512;
  for (let exponent = Math.ceil(low / apart) * apart; exponent <= high; exponent += apart) {
    const at = x(exponent);
    svg.append(shape("line", { class: "axis", x1: at, x2: at, y1: base, y2: base + 4 }));
    const anchor = at < left + 12 ? "start" : at > right - 12 ? "end" : "middle";
    svg.append(power(exponent, { class: "dim", x: at, y: base + 17, "text-anchor": anchor }));
  }
}

/* One step: the range of its format as a track, its magnitudes as a bar, parts beyond the range in patterns. */
function bar(svg, area, step, detail, top) {
  const { narrow, right } = area;
  const ends = endsOf(step);
  const arrow = Number.isFinite(step.reach);
  const line = top + (narrow ? 26 : 12) + (arrow ? (narrow ? 18 : 12) : 0);
  const [label, note] = [narrow ? top + 14 : line + 4, noted(step)];
  const look = /overflow|infinite|NaN/.test(note) ? "note grave" : "note";
  svg.append(labelled(step, label, narrow ? right - widest([note]) - 12 : Infinity));
  if (step.format.ends && step.rounds) track(svg, area, ends, line);
  magnitudes(svg, area, step, ends, line);
  if (note) {
    const [x, anchor] = narrow ? [right, "end"] : [right + 8, "start"];
    svg.append(shape("text", { class: look, x, y: label, "text-anchor": anchor }, note));
  }
  if (arrow) headroom(svg, area, step, detail.headroom[0], line);
  return line + 10;
}

const endsOf = (step) => step.format.ends ?? [-Infinity, -Infinity, Infinity];

/* A step's name and format, each in half of the room where both together have too little. */
function labelled(step, y, room) {
  const whole = widest([`${step.name} ${step.format.label}`]) <= room;
  const [name, format] = [step.name, step.format.label].map((each) => (whole ? each : fitted(each, room / 2 - 4)));
  return shape("text", { class: "strong", x: 0, y }, `${name} `, shape("tspan", { class: "dim", "font-weight": "400" }, format));
}

function track(svg, { x, low, high }, [first, , last], line) {
  svg.append(shape("rect", { class: "track", x: x(first), y: line - 6, width: Math.max(x(last) - x(first), 0), height: 12 }));
  for (const end of [first, last]) {
    const [at, inside] = [x(end), end > low && end < high];
    if (inside) svg.append(shape("line", { class: "limit", x1: at, x2: at, y1: line - 8, y2: line + 8 }));
  }
}

function magnitudes(svg, { x, right }, step, [first, normal, last], line) {
  const parts = [["lost", -Infinity, first], ["subnormal", first, normal], ["inside", normal, last], ["over", last, Infinity]];
  for (const [kind, from, to] of parts) {
    const [start, end] = [Math.max(step.low, from), Math.min(step.high, to)];
    if (!(start <= end) || (start === end && step.low !== step.high)) continue;
    const width = Math.max(x(end) - x(start), 2);
    svg.append(shape("rect", { class: `bar ${kind}`, x: x(start), y: line - 4, width, height: 8 }));
  }
  // Infinity is no place on the axis: an arrow at its end.
  const beyond = `M${right - 16},${line - 4} h9 v-3 l7,7 l-7,7 v-3 h-9 z`;
  if (step.high === Infinity) svg.append(shape("path", { class: "bar over", d: beyond }));
}

/* What colour and pattern say, in words. */
function noted(step) {
  const ends = endsOf(step);
  if (!step.rounds) return "no rounding";
  if (step.max === "nan") return "NaN";
  if (isZero(step)) return "all 0";
  const told = [];
  if (step.high >= ends[2]) told.push(step.high === Infinity ? "infinite" : "overflow");
  if (step.low < ends[0]) told.push("too small");
  else if (step.low < ends[1]) told.push("subnormal");
  return told.join(", ");
}

/* From the largest magnitude to where its format overflows; backwards where it has. */
function headroom(svg, { x, left, right, high }, step, bits, line) {
  const [from, to] = [step.reach, step.format.ends[2]];
  const [start, end] = [x(from), x(to)];
  const way = Math.sign(end - start) || 1;
  const at = bits < 0 ? line - 8 : line; // above the part beyond the range
  const kind = bits < 0 ? "headroom less" : "headroom";
  svg.append(shape("line", { class: kind, x1: start, x2: end, y1: at, y2: at }));
  svg.append(shape("path", { class: kind, d: `M${end - 5 * way},${at - 4} L${end},${at} L${end - 5 * way},${at + 4}` }));
  // The arrow is as long as the step's share of it: a square grows by two bits where the input grows by one.
  const words = `headroom ${figure(bits)} bits${step.degree > 1 ? ` × ${step.degree}` : ""}${to > high ? " →" : ""}`;
  const half = widest([words]) / 2;
  const middle = Math.max(left + half, Math.min((start + end) / 2, right - half));
  svg.append(shape("text", { class: `${kind} name`, x: middle, y: bits < 0 ? at - 5 : at - 10, "text-anchor": "middle" }, words));
}
