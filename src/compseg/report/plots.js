"use strict";
// Charts in SVG, tooltips, and numbers as Python prints them. Shared by all pages; needs nothing else.

document.documentElement.classList.add("scripted");
const charts = [];

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function shape(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// toFixed rounds a tie up, Python to the even digit: 1/16 is .062 in metrics and would be .063 here.
function fixed(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const scaled = Math.abs(value) * 10 ** digits;
  const tie = scaled % 1 === 0.5 && Number.isInteger(value * 2 ** (digits + 1)) && Math.floor(scaled) % 2 === 0;
  return tie ? ((Math.sign(value) * Math.floor(scaled)) / 10 ** digits).toFixed(digits) : value.toFixed(digits);
}

// Four digits, without zeros at the end.
const short = (value) => (value === null || !Number.isFinite(value) ? "–" : String(Number(value.toPrecision(4))));

// Text as long as there is room for, in letters of about 6.6 pixels.
function shortened(text, room) {
  const most = Math.max(3, Math.floor(room / 6.6));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

const tip = element("div", { class: "tip", hidden: "" });
document.body.append(tip);

function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 6))}px`;
  tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18}px`;
}

const hideTip = () => { tip.hidden = true; };
for (const node of document.querySelectorAll("[data-tip]")) {
  node.addEventListener("pointermove", (event) => showTip(event, node.dataset.tip));
  node.addEventListener("pointerleave", hideTip);
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((times) => times * power).find((each) => each >= raw * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(Number((n * step).toPrecision(12)));
  return found.length > 1 || count > 20 ? found : ticks(low, high, 2 * count);
}

/* A chart of lines and dots.
   options: label, for screen readers; series: [{name, x, y, kind: "line" | "step" | "dots" | "ranges", colour, dash, tips, pick}], ranges from x to x2;
   x, y: {label, min, max, log, names}; marks: [{x, label}]; span: [low, high]; bands: [[x, name]]; now: [x, y]; height. */
function chart(node, options) {
  node.textContent = "";
  const width = Math.max(260, node.clientWidth || 420), height = options.height || Math.min(340, width * 0.72);
  const left = options.y.names ? Math.min(240, width * 0.4) : 64, right = width - 12, top = options.bands?.length ? 22 : 10, bottom = height - 40;
  const { series, x, y } = options;
  const range = (axis, key) => {
    const values = series.flatMap((each) => [...each[key], ...((key === "x" && each.x2) || [])]).filter((value) => Number.isFinite(value) && (!axis.log || value > 0));
    let low = axis.min ?? Math.min(...values), high = axis.max ?? Math.max(...values);
    if (!(high > low)) { low = (low || 0) - 0.5; high = low + 1; }
    return axis.reverse ? [high, low] : [low, high];
  };
  const scale = (axis, [low, high], first, last) => {
    const to = axis.log ? Math.log10 : Number;
    return (value) => first + ((to(value) - to(low)) / (to(high) - to(low))) * (last - first);
  };
  const limits = { x: range(x, "x"), y: range(y, "y") };
  const X = scale(x, limits.x, left, right), Y = scale(y, limits.y, bottom, top);
  const svg = shape("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.label });
  const text = (content, attributes) => svg.append(shape("text", attributes, content));
  for (const [i, name] of (y.names || []).entries()) {
    svg.append(shape("text", { x: left - 6, y: Y(i) + 4, "text-anchor": "end" }, shortened(name, left - 10), shape("title", {}, name)));
  }
  for (const value of y.names ? [] : y.log ? powers(limits.y) : ticks(...[...limits.y].sort((a, b) => a - b), 5)) {
    svg.append(shape("line", { class: "grid", x1: left, x2: right, y1: Y(value), y2: Y(value) }));
    text(y.log ? value.toExponential(0) : short(value), { x: left - 6, y: Y(value) + 4, "text-anchor": "end" });
  }
  const sorted = [...limits.x].sort((a, b) => a - b);
  const places = x.names ? x.names.map((_, i) => i) : x.log ? powers(sorted) : ticks(...sorted, Math.max(3, Math.floor(width / 110)));
  for (const value of places) {
    const name = x.names ? x.names[value] : short(value);
    const label = shape("text", { x: X(value), y: bottom + 16, "text-anchor": "middle" }, shortened(name, (right - left) / places.length), shape("title", {}, name));
    svg.append(shape("line", { class: "tick", x1: X(value), x2: X(value), y1: bottom, y2: bottom + 4 }), label);
  }
  text(shortened(x.label, right - left), { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" });
  if (!y.names) text(shortened(y.label, bottom - top), { x: -(top + bottom) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle" });
  if (options.span) {
    const [from, to] = options.span.map(X);
    svg.append(shape("rect", { class: "span", x: Math.min(from, to), y: top, width: Math.abs(to - from) || 0.5, height: bottom - top }));
  }
  svg.append(shape("path", { class: "frame", d: `M${left} ${top}V${bottom}H${right}` }));
  for (const [place, name] of options.bands || []) {
    const tick = shape("path", { class: "mark", d: `M${X(place)} ${top - 14}V${top}` }, shape("title", {}, `${place} cm⁻¹: ${name}`));
    const wide = shape("rect", { x: X(place) - 5, y: top - 18, width: 10, height: 20, fill: "transparent" });
    wide.addEventListener("pointermove", (event) => showTip(event, `${place} cm⁻¹: ${name}`));
    wide.addEventListener("pointerleave", hideTip);
    svg.append(tick, wide);
  }
  for (const each of series.filter((each) => each.kind === "ranges")) each.x.forEach((from, i) => {
    if (Number.isFinite(from)) svg.append(shape("path", { class: `line ${each.colour}`, d: `M${X(from)} ${Y(each.y[i])}H${X(each.x2[i])}` }));
  });
  const lines = series.filter((each) => ["line", "step"].includes(each.kind));
  // A drawing in the drawing ends at the axes, where they are shorter than the lines.
  const inner = { x: left, y: top - 1, width: right - left + 1, height: bottom - top + 2 };
  const plane = shape("svg", { ...inner, viewBox: Object.values(inner).join(" ") });
  svg.append(plane);
  for (const each of lines) plane.append(shape("path", { class: `line ${each.colour} ${each.dash || ""}`, d: pathOf(each, X, Y, y.log) }));
  const follow = shape("line", { class: "follow", y1: top, y2: bottom, visibility: "hidden" });
  svg.append(follow);
  if (lines.length) {
    svg.addEventListener("pointermove", (event) => {
      if (event.target.classList.contains("dot") || event.target.getAttribute("fill") === "transparent") return;
      const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * width;
      if (at < left || at > right) return;
      const near = nearest(lines[0].x, at, X), here = lines[0].x[near];
      follow.setAttribute("x1", X(here)); follow.setAttribute("x2", X(here)); follow.setAttribute("visibility", "visible");
      const rows = lines.map((each) => `${each.name}: ${short(each.y[nearest(each.x, X(here), X)])}`);
      showTip(event, [`${x.label}: ${short(here)}`, ...rows].join("\n"));
    });
    svg.addEventListener("pointerleave", () => { hideTip(); follow.setAttribute("visibility", "hidden"); });
  }
  for (const mark of options.marks || []) {
    svg.append(shape("line", { class: "mark", x1: X(mark.x), x2: X(mark.x), y1: top, y2: bottom }, shape("title", {}, mark.label)));
    text(mark.label, { x: X(mark.x) + (X(mark.x) > width * 0.6 ? -5 : 5), y: top + 12, "text-anchor": X(mark.x) > width * 0.6 ? "end" : "start" });
  }
  for (const each of series.filter((each) => each.kind === "dots")) {
    each.x.forEach((value, i) => {
      if (!Number.isFinite(each.y[i]) || !Number.isFinite(value)) return;
      const [cx, cy] = [X(value), Y(each.y[i])];
      // Squares and circles, for readers who cannot tell the colours apart.
      const dot = each.colour === "red"
        ? shape("rect", { class: `dot point ${each.colour}`, x: cx - 4, y: cy - 4, width: 8, height: 8 })
        : shape("circle", { class: `dot ${each.colour}`, cx, cy, r: 4.5 });
      dot.addEventListener("pointermove", (event) => showTip(event, each.tips ? each.tips[i] : `${short(value)}, ${short(each.y[i])}`));
      dot.addEventListener("pointerleave", hideTip);
      if (each.pick) { dot.classList.add("pick"); dot.addEventListener("click", () => each.pick(i)); }
      svg.append(dot);
    });
  }
  if (options.now) svg.append(shape("circle", { class: "now", cx: X(options.now[0]), cy: Y(options.now[1]), r: 6.5 }));
  node.append(svg, legend(series));
}

function powers([low, high]) {
  const found = [];
  for (let n = Math.ceil(Math.log10(low)); n <= Math.log10(high); n++) found.push(10 ** n);
  return found;
}

function pathOf({ x, y, kind }, X, Y, log) {
  let path = "", pen = "M";
  x.forEach((value, i) => {
    if (!Number.isFinite(y[i]) || (log && y[i] <= 0)) { pen = "M"; return; }
    const [across, up] = [X(value).toFixed(1), Y(y[i]).toFixed(1)];
    path += pen === "L" && kind === "step" ? `H${across}V${up}` : `${pen}${across} ${up}`;
    pen = "L";
  });
  // A single epoch has a place, and no line leads to it.
  const alone = path.match(/^M([\d.]+) ([\d.]+)$/);
  return alone ? `M${alone[1] - 4} ${alone[2]}h8` : path;
}

function nearest(values, at, X) {
  let best = 0;
  values.forEach((value, i) => { if (Math.abs(X(value) - at) < Math.abs(X(values[best]) - at)) best = i; });
  return best;
}

function legend(series) {
  const named = series.filter((each) => each.name);
  return element("div", { class: "legend" }, ...named.map((each) =>
    element("span", {}, element("i", { class: `${each.colour} ${each.kind === "dots" ? "dot" : each.dash || ""}` }), each.name)));
}

// Parallel coordinates: a line for each of several jobs, the first the best, across an axis for each column.
function parallel(node, { parallel: columns, tips, links, label }) {
  node.textContent = "";
  const width = Math.max(280, node.clientWidth || 420), height = 320, top = 34, bottom = height - 24, margin = Math.min(70, width / 8);
  const svg = shape("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const across = (place) => (columns.length > 1 ? margin + (place * (width - 2 * margin)) / (columns.length - 1) : width / 2);
  const scales = columns.map(({ axis, values }) => {
    const to = axis.log ? Math.log10 : Number, known = values.filter((value) => value !== null).map(to);
    const [low, high] = axis.names ? [0, Math.max(1, axis.names.length - 1)] : [Math.min(...known), Math.max(...known)];
    return (value) => { const share = high > low ? (to(value) - low) / (high - low) : 0.5; return axis.reverse ? top + share * (bottom - top) : bottom - share * (bottom - top); };
  });
  const colour = (rank) => `color-mix(in srgb, var(--disease) ${Math.round(100 * (1 - rank / Math.max(1, tips.length - 1)))}%, var(--faint))`;
  tips.map((_, i) => i).reverse().forEach((i) => {
    const points = columns.map(({ values }, place) => `${across(place).toFixed(1)} ${scales[place](values[i]).toFixed(1)}`);
    const path = shape("path", { class: `line job ${links[i] ? "pick" : ""}`, d: `M${points.join("L")}` });
    path.style.stroke = colour(i);
    path.addEventListener("pointermove", (event) => showTip(event, tips[i]));
    path.addEventListener("pointerleave", hideTip);
    path.addEventListener("click", () => { if (links[i]) location.href = links[i]; });
    svg.append(path);
  });
  columns.forEach(({ axis, values }, place) => {
    const x = across(place), most = Math.max(6, Math.floor(width / columns.length / 7)), known = values.filter((value) => value !== null);
    svg.append(shape("path", { class: "frame", d: `M${x} ${top}V${bottom}` }));
    const name = axis.label.length > most ? `…${axis.label.slice(1 - most)}` : axis.label;
    svg.append(shape("text", { x, y: 14, "text-anchor": "middle" }, name, shape("title", {}, axis.label)));
    const ends = axis.names ? axis.names.map((text, i) => [i, text]) : [Math.min(...known), Math.max(...known)].map((value) => [value, short(value)]);
    for (const [value, text] of ends) {
      const last = place === columns.length - 1, cut = shortened(text, 93);
      svg.append(shape("text", { class: "over", x: last ? x - 5 : x + 5, y: scales[place](value) + 4, "text-anchor": last ? "end" : "start" }, cut));
    }
  });
  node.append(svg);
}

// Charts are as wide as there is room for, so they are made again when that changes.
function keep(id, options) {
  const node = document.getElementById(id);
  if (!node) return () => {};
  const again = () => { if (!node.clientWidth && node.firstChild) return; const given = options(); (given.parallel ? parallel : chart)(node, given); };
  charts.push(again);
  again();
  return again;
}

let resized;
addEventListener("resize", () => { cancelAnimationFrame(resized); resized = requestAnimationFrame(() => charts.forEach((each) => each())); });

// Tables that a click on a column sorts.
const numberOf = (cell) => (cell.dataset.number === undefined ? null : Number(cell.dataset.number));
function ordered(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return x - y;
  return x === y ? a.textContent.localeCompare(b.textContent, undefined, { numeric: true }) : x === null ? 1 : -1;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, head.textContent);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => sign * ordered(a.cells[column], b.cells[column])));
    });
    head.replaceChildren(button);
    head.classList.toggle("number", [...body.rows].filter((row) => numberOf(row.cells[column]) !== null).length > body.rows.length / 2);
  });
}
