// The page of a run. Every number that the threshold moves comes from counts of the whole maps: a byte a pixel says how
// many of the slider's steps the activation exceeds, so masks are exact at each step as well.
const data = JSON.parse(document.getElementById("data").textContent);
const { samples, steps, colours } = data;
const byId = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll("#cards > li")], rows = [...document.querySelectorAll("#table tbody tr")];
const OFF = 255, MARK = "#d55e00", TRUTH = "#56b4e9", large = byId("large");
let at = data.fitted, cut = data.cut, order = samples.map((_, i) => i), opened = null;

// What is called what at the threshold ----------------------------------------------------------------------------

const area = (s, k = at) => s.above[k] / Math.max(s.tissue, 1);
const dice = (s, k = at) => (s.judged ? (2 * s.hits[k]) / (s.above[k] + s.disease) : null);
const called = (s) => area(s) > cut;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const of = (label) => samples.filter((s) => s.label === label);
const error = (s) => (s.judged ? 1 - dice(s) : s.label ? 1 - area(s) : area(s));

function rocOver(score) {
  const sorted = [...samples].sort((a, b) => score(b) - score(a)), total = [of(0).length, of(1).length];
  const counts = [0, 0], curve = { x: [0], y: [0] };
  sorted.forEach((s, i) => {
    counts[s.label]++;
    if (i + 1 < sorted.length && score(sorted[i + 1]) === score(s)) return;
    curve.x.push(counts[0] / total[0]); curve.y.push(counts[1] / total[1]);
  });
  return curve;
}

// The share of pairs in which the disease sample scores higher, ties counting half.
function auc(score) {
  let sum = 0;
  for (const sick of of(1)) for (const well of of(0)) sum += score(sick) > score(well) ? 1 : score(sick) === score(well) ? 0.5 : 0;
  return sum / (of(1).length * of(0).length);
}

function pixelsAt(k) {
  const seen = samples.filter((s) => s.hits), sum = (count) => seen.reduce((total, s) => total + count(s), 0);
  const hit = sum((s) => s.hits[k]), marked = sum((s) => s.above[k]), sick = sum((s) => s.disease), tissue = sum((s) => s.tissue);
  return { TP: hit, FP: marked - hit, FN: sick - hit, TN: tissue - sick - marked + hit };
}

function samplesAt() {
  const count = (label, positive) => samples.filter((s) => s.label === label && called(s) === positive).length;
  return { TP: count(1, true), FP: count(0, true), FN: count(1, false), TN: count(0, false) };
}

function figuresAt(k) {
  const judged = samples.filter((s) => s.judged), well = of(0), both = well.length && of(1).length;
  return [
    ...(judged.length ? [["mean Dice", mean(judged.map((s) => dice(s, k))), "dice_mean"]] : []),
    ...(both ? [["area AUC", auc((s) => area(s, k)), "area_auc"]] : []),
    ...(well.length ? [["healthy tissue marked", mean(well.map((s) => area(s, k))), "healthy_area_fraction"]] : []),
  ];
}

// Maps ---------------------------------------------------------------------------------------------------------------

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpack(s) {
  const all = await inflated(s.codes), size = s.shape[0] * s.shape[1];
  const truth = s.hits ? Uint8Array.from({ length: size }, (_, i) => (all[size + (i >> 3)] >> (7 - (i & 7))) & 1) : null;
  s.codes = null;
  s.spread = data.spread ? await inflated(data.spread.of[s.name]) : null;
  s.pixels = { codes: all.subarray(0, size), truth };
}

function canvas(s, zoom, label) {
  const node = element("canvas", { width: s.shape[1] * zoom, height: s.shape[0] * zoom, role: "img", "aria-label": label });
  return [node, node.getContext("2d")];
}

function paint(s, colourOf) {
  const [height, width] = s.shape, [node, context] = canvas(s, 1, "");
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set(colourOf(i), 4 * i);
  context.putImageData(image, 0, 0);
  return node;
}

// Along the edges of pixels, so that an outline covers none of them.
function outline(context, s, zoom, inside, colour, dash) {
  const [height, width] = s.shape;
  context.strokeStyle = colour;
  context.lineWidth = Math.max(1, zoom / 3);
  context.setLineDash(dash ? [2 * context.lineWidth, 1.5 * context.lineWidth] : []);
  context.beginPath();
  for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i++) {
    if (x + 1 < width && inside(i) !== inside(i + 1)) { context.moveTo((x + 1) * zoom, y * zoom); context.lineTo((x + 1) * zoom, (y + 1) * zoom); }
    if (y + 1 < height && inside(i) !== inside(i + width)) { context.moveTo(x * zoom, (y + 1) * zoom); context.lineTo((x + 1) * zoom, (y + 1) * zoom); }
  }
  context.stroke();
}

const blend = (value) => {
  const place = Math.min(Math.max(value / data.vmax, 0), 1) * (colours.length - 1), low = Math.min(Math.floor(place), colours.length - 2);
  return colours[low].map((part, i) => Math.round(part + (colours[low + 1][i] - part) * (place - low)));
};
// A pixel between two steps is shown in the colour of their middle.
const ramp = [...steps, 1].map((step, k) => [...blend(k ? (steps[k - 1] + step) / 2 : step / 2), 255]);

// Pictures of a sample in some nodes, for the gallery and the large view.
function show(s, side, nodes) {
  const { codes, truth } = s.pixels, k = at, zoom = Math.max(1, Math.min(8, Math.ceil((side * devicePixelRatio) / Math.max(...s.shape))));
  const inside = (i) => codes[i] !== OFF && codes[i] > k, expert = (i) => truth[i] === 1;
  const words = `${fixed(100 * area(s), 1)} % marked`;
  const layers = (base, name, ...lines) => {
    const [node, context] = canvas(s, zoom, `${s.name}: ${name}, ${words}`);
    context.imageSmoothingEnabled = false;
    if (base) context.drawImage(base, 0, 0, node.width, node.height);
    lines.forEach((line) => outline(context, s, zoom, ...line));
    return node;
  };
  const line = [inside, MARK, false], dashes = truth && [expert, TRUTH, true];
  const fill = paint(s, (i) => (inside(i) ? [213, 94, 0, 80] : [0, 0, 0, 0]));
  nodes.marked.replaceChildren(nodes.photo(), layers(fill, "marked on the picture", line, ...(truth ? [dashes] : [])));
  nodes.map.replaceChildren(layers(paint(s, (i) => (codes[i] === OFF ? [244, 244, 242, 255] : ramp[codes[i]])), "map of activations", line));
  if (truth && nodes.truth) {
    const region = paint(s, (i) => (codes[i] === OFF ? [244, 244, 242, 255] : truth[i] ? [86, 180, 233, 255] : [201, 206, 212, 255]));
    nodes.truth.replaceChildren(layers(region, "region of the expert", line));
  }
}

// How far views differ, on tissue; the brightest is the same for all samples.
function unsure(s) {
  const node = paint(s, (i) => (s.pixels.codes[i] === OFF ? [244, 244, 242, 255] : [...blend((s.spread[i] / 254) * data.vmax), 255]));
  node.setAttribute("aria-label", `${s.name}: how far views differ, on average ${short(data.spread.mean[s.name])}`);
  return node;
}

const photoOf = (i) => () => {
  const photo = cards[i].querySelector("img.photo").cloneNode();
  photo.alt = "";
  return photo;
};
const panelsOf = (i) => ({ photo: photoOf(i), marked: cards[i].querySelector(".marked"), map: cards[i].querySelector(".map"), truth: cards[i].querySelector(".truth") });
const inView = new Set();
const side = () => Number(byId("size").value);
const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
  const i = Number(entry.target.dataset.index);
  if (!entry.isIntersecting) return inView.delete(i);
  inView.add(i);
  refresh(i);
}), { rootMargin: "300px" });

// Only what is in view, and only if it shows another threshold or size.
function refresh(i) {
  const state = `${at} ${side()}`;
  if (!samples[i].pixels || cards[i].dataset.state === state) return;
  cards[i].dataset.state = state;
  show(samples[i], side(), panelsOf(i));
}

// Order and filters ----------------------------------------------------------------------------------------------------

const keys = {
  error: (s) => -error(s), best: error, area: (s) => -area(s), dice: (s) => dice(s) ?? 2, x: (s) => -s.x, label: (s) => -s.label,
  unsure: (s) => -data.spread.mean[s.name], name: (s) => s.name, group: (s) => s.group,
};
const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);

function isShown(s) {
  const words = byId("find").value.trim().toLowerCase(), group = byId("group")?.value ?? "all", wrong = byId("errors").value;
  const label = byId("label").value, is = { wrong: called(s) !== Boolean(s.label), missed: s.label && !called(s), alarm: !s.label && called(s) };
  return (!label || String(s.label) === label) && (group === "all" || group === `=${s.group}`) && (!wrong || is[wrong])
    && (!words || `${s.name}\n${s.class}\n${s.patient}\n${s.group}`.toLowerCase().includes(words));
}

function arrange() {
  const sort = byId("sort").value, key = keys[sort], values = samples.map(key);
  order = samples.map((_, i) => i).filter((i) => isShown(samples[i])).sort((a, b) => compare(values[a], values[b]) || a - b);
  const hidden = samples.map((_, i) => i).filter((i) => !order.includes(i));
  for (const [list, parent] of [[cards, byId("cards")], [rows, document.querySelector("#table tbody")]]) {
    parent.append(...[...order, ...hidden].map((i) => list[i]));
    list.forEach((node) => { node.hidden = false; });
    hidden.forEach((i) => { list[i].hidden = true; });
  }
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const mine = head.dataset.sort === sort;
    if (mine) head.setAttribute("aria-sort", ["x", "area", "label"].includes(sort) ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  byId("count").textContent = order.length === samples.length ? `${samples.length} samples` : `${order.length} of ${samples.length} samples`;
}

// The threshold --------------------------------------------------------------------------------------------------------

function confusion(id, title, unit, { TP, FP, FN, TN }) {
  const share = (part, whole) => (whole ? fixed(part / whole, 3) : "–");
  const cell = (value) => element("td", { class: "number" }, value.toLocaleString("en"));
  const head = (...words) => element("tr", {}, ...words.map((word) => element("th", { scope: "col" }, word)));
  const row = (word, ...values) => element("tr", {}, element("th", { scope: "row" }, word), ...values.map(cell));
  const rates = `Sensitivity ${share(TP, TP + FN)}, specificity ${share(TN, TN + FP)}, precision ${share(TP, TP + FP)}.`;
  byId(id).replaceChildren(
    element("table", { class: "confusion" }, element("caption", {}, title), element("thead", {}, head("", `called disease`, `called healthy`)),
      element("tbody", {}, row(`disease ${unit}`, TP, FN), row(`healthy ${unit}`, FP, TN))),
    element("p", { class: "about" }, rates));
}

function setThreshold(k) {
  at = Math.min(Math.max(k, 0), steps.length - 1);
  const now = at === data.fitted ? `${short(steps[at])}, the stored one` : short(steps[at]);
  byId("threshold").value = at;
  byId("threshold").setAttribute("aria-valuetext", now);
  if (document.activeElement !== byId("value")) byId("value").value = short(steps[at]);
  byId("value").title = String(steps[at]);
  byId("command").textContent = `${data.command} threshold=${steps[at]}`;
  byId("live").replaceChildren(...figuresAt(at).map(([name, value, key]) =>
    element("span", {}, `${name} `, element("b", { "data-metric": key }, fixed(value, 3)))));
  samples.forEach((s, i) => {
    cards[i].querySelector(".area").textContent = `${fixed(100 * area(s), 1)} %`;
    rows[i].querySelector(".area").textContent = fixed(area(s), 4);
    if (!s.judged) return;
    cards[i].querySelector(".dice").textContent = fixed(dice(s), 3);
    rows[i].querySelector(".dice").textContent = fixed(dice(s), 4);
  });
  if (samples.some((s) => s.hits)) confusion("pixel-table", "Tissue pixels", "pixels", pixelsAt(at));
  callSamples();
  inView.forEach(refresh);
  moving.forEach((again) => again());
  if (opened !== null) fill(opened);
}

function callSamples() {
  confusion("sample-table", "Samples", "samples", samplesAt());
  if (byId("errors").value || ["error", "best", "area", "dice"].includes(byId("sort").value)) later();
  rocPlot();
}

// Cards would jump about under a slider that is being moved.
let waiting;
function later() { clearTimeout(waiting); waiting = setTimeout(arrange, 350); }

// Charts ---------------------------------------------------------------------------------------------------------------

const both = of(0).length && of(1).length;
const CHANCE = { name: "chance", x: [0, 1], y: [0, 1], kind: "line", colour: "grey", dash: "dashed" };
const unit = { min: 0, max: 1 };
const here = () => ({ x: steps[at], label: `threshold ${short(steps[at])}` });
const rocPlot = keep("roc-plot", () => {
  const curve = both ? rocOver(area) : null, { TP, FP, FN, TN } = samplesAt(), size = [of(1).length, of(0).length];
  return {
    label: both ? `ROC over samples, area under it ${fixed(auc(area), 3)}` : "Only one class is present",
    series: [...(both ? [{ name: `area fraction, AUC ${fixed(auc(area), 3)}`, ...curve, kind: "line", colour: "ink" }] : []), CHANCE],
    x: { label: `1 - specificity (${size[1]} healthy samples)`, ...unit }, y: { label: `sensitivity (${size[0]} disease samples)`, ...unit },
    now: both ? [FP / (FP + TN), TP / (TP + FN)] : undefined,
  };
});
const judged = samples.filter((s) => s.judged);
const curveOf = (value) => steps.map((_, k) => value(k));
const histogram = Object.entries(data.histogram), LOOKS = { "healthy samples": "blue", "disease samples, other tissue": "red dotted" };
const rates = judged.length ? curveOf((k) => { const { TP, FP, FN, TN } = pixelsAt(k); return [FP / (FP + TN), TP / (TP + FN)]; }) : [];
const levels = [
  ...(judged.length ? [{ name: "mean Dice", x: steps, y: curveOf((k) => mean(judged.map((s) => dice(s, k)))), kind: "line", colour: "ink" }] : []),
  ...[[1, "disease", "red"], [0, "healthy", "blue"]].filter(([label]) => of(label).length).map(([label, name, colour]) => (
    { name: `marked area, ${name} samples`, x: steps, y: curveOf((k) => mean(of(label).map((s) => area(s, k)))), kind: "line", colour, dash: "dotted" })),
];
const moving = [
  keep("pixels-plot", () => ({
    label: "ROC over tissue pixels", now: rates[at], x: { label: "1 - specificity", ...unit }, y: { label: "sensitivity", ...unit },
    series: [{ name: "pixels", x: [1, ...rates.map((r) => r[0]), 0], y: [1, ...rates.map((r) => r[1]), 0], kind: "line", colour: "ink" }, CHANCE],
  })),
  keep("levels-plot", () => ({
    label: "Dice and marked area against the threshold", series: levels, x: { label: "threshold", min: 0, max: data.vmax }, y: { label: "share", ...unit },
    marks: [here()], span: data.interval.map((end) => Math.min(end, data.vmax)),
  })),
  keep("activations-plot", () => ({
    label: "Share of tissue pixels by activation", marks: [here()], x: { label: "activation", min: 0, max: data.vmax }, y: { label: "share of tissue pixels", log: true },
    series: histogram.map(([name, shares]) => {
      const [colour, dash] = (LOOKS[name] || "red").split(" "), width = data.vmax / shares.length;
      return { name, x: shares.map((_, i) => (i + 1) * width), y: shares, kind: "step", colour, dash };
    }),
  })),
];
const groups = [...new Set(data.groups.map((s) => s.group))].sort((a, b) => compare(a, b));
const index = new Map(samples.map((s, i) => [s.name, i]));
keep("groups-plot", () => ({
  label: "Pooled activation x of each sample by group", x: { label: "group", names: groups.map((name) => name || "(no group)"), min: -0.5, max: groups.length - 0.5 },
  y: { label: "activation x", min: 0 },
  series: [[0, "healthy", "blue"], [1, "disease", "red"]].map(([label, name, colour]) => {
    const members = data.groups.filter((s) => s.label === label);
    return {
      name, kind: "dots", colour, x: members.map((s, i) => groups.indexOf(s.group) + (label ? 0.15 : -0.15) + 0.1 * (((i * 0.618) % 1) - 0.5)), y: members.map((s) => s.x),
      tips: members.map((s) => `${s.name}\n${s.split}, ${s.group || "no group"}, x ${short(s.x)}`),
      pick: (i) => { if (members[i].split === "test") open(index.get(members[i].name)); },
    };
  }),
}));
if (data.errors) keep("errors-plot", () => ({
  label: "Share of wrong pixels by spread of views, validation samples", x: { label: "spread of the activation over views", min: 0 }, y: { label: "share marked wrongly", min: 0 },
  series: [{ name: "validation pixels", x: data.errors.spread, y: data.errors.wrong, kind: "line", colour: "ink" },
    { x: data.errors.spread, y: data.errors.wrong, kind: "dots", colour: "blue", tips: data.errors.pixels.map((n, i) => `spread ${short(data.errors.spread[i])}: ${fixed(100 * data.errors.wrong[i], 1)} % of ${n.toLocaleString("en")} pixels`) }],
}));
if (data.reliability) keep("reliability-plot", () => {
  const { activation, share, pixels } = data.reliability;
  return {
    label: "Share of diseased pixels by activation, validation samples", x: { label: "activation", ...unit }, y: { label: "share that is diseased", ...unit },
    series: [{ name: "validation pixels", x: activation, y: share, kind: "line", colour: "ink" },
      { x: activation, y: share, kind: "dots", colour: "blue", tips: pixels.map((n, i) => `activation ${short(activation[i])}: ${fixed(100 * share[i], 1)} % of ${n.toLocaleString("en")} pixels`) },
      { ...CHANCE, name: "a probability" }],
  };
});

for (const [id, options] of Object.entries(data.charts)) keep(id, () => options);

function trainingPlot(id, label, lines) {
  const there = lines.filter(([key]) => data.history[key]?.some((value) => value !== null));
  if (there.length) keep(id, () => ({
    label, x: { label: "epoch" }, y: { label }, marks: data.kept === null ? [] : [{ x: data.kept, label: `kept: epoch ${data.kept}` }],
    series: there.map(([key, name, colour, dash]) => ({ name, x: data.history.epoch, y: data.history[key].map((value) => value ?? NaN), kind: "line", colour, dash })),
  }));
}
trainingPlot("loss-plot", "loss", [["train/loss", "training", "gold", "dashed"], ["val/loss", "validation", "ink"]]);
trainingPlot("x-plot", "activation x", [1, 0].flatMap((label) => ["train", "val"].map((split) => {
  const name = label ? "disease" : "healthy";
  return [`${split}/x_${name}`, `${name}, ${split === "val" ? "validation" : "training"}`, label ? "red" : "blue", split === "val" ? "" : "dashed"];
})));

// Spectra ---------------------------------------------------------------------------------------------------------------

const spectra = data.spectra;
const floats = (text) => [...new Float32Array(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer)];
const wave = () => /^(cm-1|cm\^-1|1\/cm|cm⁻¹)$/.test(spectra.unit);
const axisOf = () => ({ label: wave() ? "wavenumber (cm⁻¹)" : `position (${spectra.unit || "channel"})`, reverse: wave() });
function spectrum(values, part, what) {
  const count = spectra.axis.length, line = (n) => values.slice(n * count, (n + 1) * count);
  return () => ({
    label: `Mean spectra inside and outside the region, ${what}`, x: axisOf(), y: { label: what }, bands: spectra.bands, height: 260,
    series: [{ name: `inside ${spectra.by}`, x: spectra.axis, y: line(part), kind: "line", colour: "red" },
      { name: "other tissue", x: spectra.axis, y: line(part + 1), kind: "line", colour: "blue", dash: "dashed" }],
  });
}
const READ = "what the network reads";
if (spectra) {
  keep("raw-plot", spectrum(floats(spectra.mean), 0, "signal, as stored"));
  keep("read-plot", spectrum(floats(spectra.mean), 2, READ));
  const NAMES = { gradient: ["gradient times input", "ink", ""], occlusion: ["occlusion", "red", "dashed"], linear: ["linear pseudo-labels", "gold", "dotted"] };
  const lines = Object.entries(spectra.importance).map(([key, text]) => {
    const values = floats(text), most = Math.max(...values.map(Math.abs)) || 1;
    return { name: NAMES[key][0], x: spectra.axis, y: values.map((value) => value / most), kind: key === "occlusion" ? "step" : "line", colour: NAMES[key][1], dash: NAMES[key][2] };
  });
  if (lines.length) {
    keep("importance-plot", () => ({
      label: "Importance of each channel", x: axisOf(), y: { label: "share of the largest", min: -1, max: 1 }, bands: spectra.bands, height: 280,
      series: [...lines, { x: [spectra.axis[0], spectra.axis.at(-1)], y: [0, 0], kind: "line", colour: "grey" }],
    }));
    bandTable(lines);
  }
}

// The known bands that matter most, for readers who do not know the axis by heart.
function bandTable(lines) {
  const value = (line, place) => line.y[nearest(line.x, place, Number)];
  const known = spectra.bands.map(([place, name]) => [place, name, lines.map((line) => value(line, place))]);
  known.sort((a, b) => Math.abs(b[2][0]) - Math.abs(a[2][0]));
  if (!known.length) return;
  const head = element("tr", {}, ...["cm⁻¹", "known band", ...lines.map((line) => line.name)].map((word) => element("th", { scope: "col" }, word)));
  const body = known.map(([place, name, values]) => element("tr", {}, element("td", { class: "number" }, String(place)), element("td", {}, name),
    ...values.map((each) => element("td", { class: "number" }, fixed(each, 2)))));
  byId("importance-table").replaceChildren(element("details", {}, element("summary", {}, "By known band, the strongest first"),
    element("table", { class: "pairs" }, element("thead", {}, head), element("tbody", {}, ...body))));
}

// The large view -----------------------------------------------------------------------------------------------------------

function open(i) {
  opened = i;
  fill(i);
  if (!large.open) large.showModal();
  large.scrollTop = 0;
  // Charts need the width that the dialog has only now.
  spectraOf(samples[i]);
}

function fill(i) {
  const s = samples[i], body = byId("large-body");
  byId("large-name").textContent = s.name;
  const pane = (name, node) => zooming(element("figure", { tabindex: 0, role: "button", "aria-pressed": "false", "aria-label": `${name}: enlarge` }, node, name));
  const stack = element("div", { class: "stack" }), map = element("div"), truth = s.hits ? element("div") : null, photo = photoOf(i)();
  photo.alt = `Picture of ${s.name}`;
  const panels = element("div", { class: "panels" }, pane("picture", photo), pane("marked on it", stack), pane("map", map), ...(truth ? [pane("expert, and outline of what is marked", truth)] : []),
    ...(s.spread && s.pixels ? [pane(`unsure: spread of views, 0 to ${short(data.spread.vmax)}`, unsure(s))] : []));
  panels.style.setProperty("--panels", innerWidth < 640 ? 2 : panels.children.length);
  const score = dice(s), place = order.indexOf(i);
  const facts = [s.label ? "disease" : "healthy", s.class, s.group && `group ${s.group}`, s.patient && `patient ${s.patient}`, `${s.size[1]} x ${s.size[0]} pixels`,
    `${fixed(100 * area(s), 1)} % of ${s.tissue.toLocaleString("en")} tissue pixels marked`, score === null ? "" : `Dice ${fixed(score, 3)}`, `x ${short(s.x)}`, data.spread && `spread ${short(data.spread.mean[s.name])}`,
    called(s) ? "called disease" : "called healthy", place < 0 ? "" : `${place + 1} of ${order.length} shown`];
  const kept = [...body.querySelectorAll(".spectra")];
  const words = element("p", { class: "about" }, facts.filter(Boolean).join(" · "));
  const files = element("p", { class: "about" }, ...(s.file ? ["Its files: ", ...[".npy", ".png", "_mask.png"].flatMap((ending) => [element("a", { href: `maps/${encodeURIComponent(s.file + ending)}` }, `maps/${s.file}${ending}`), " "])] : []));
  const thinned = s.shape[0] < s.size[0] ? [element("p", { class: "about" }, "Shown in fewer pixels than it has; the numbers are of all of them.")] : [];
  body.replaceChildren(words, panels, ...thinned, ...kept, files);
  if (s.pixels) show(s, Math.min(480, innerWidth / (truth ? 4 : 3)), { photo: photoOf(i), marked: stack, map, truth });
}

// Click a picture of the large view, or press Enter on it, and it is as wide as the view.
function zooming(figure) {
  const toggle = () => figure.setAttribute("aria-pressed", String(figure.classList.toggle("zoomed")));
  figure.addEventListener("click", toggle);
  figure.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); } });
  return figure;
}

function spectraOf(s) {
  const body = byId("large-body");
  body.querySelectorAll(".spectra").forEach((node) => node.remove());
  if (!spectra?.of[s.name]) return;
  const values = floats(spectra.of[s.name]), nodes = [element("div"), element("div")];
  const plots = nodes.map((node, i) => element("figure", { class: "plot" }, node, element("figcaption", {}, i ? "What the model reads there." : "Mean spectra of this sample, as stored.")));
  body.insertBefore(element("div", { class: "plots spectra" }, ...plots), body.lastChild);
  chart(nodes[0], spectrum(values, 0, "signal, as stored")());
  chart(nodes[1], spectrum(values, 2, READ)());
}

function stepSample(by) {
  if (!order.length) return;
  const place = order.indexOf(opened);
  open(order[(place + by + order.length) % order.length]);
}

// What people do ------------------------------------------------------------------------------------------------------------

byId("threshold").max = steps.length - 1;
byId("threshold").addEventListener("input", (event) => setThreshold(Number(event.target.value)));
byId("value").addEventListener("input", (event) => {
  const wanted = Number(event.target.value);
  if (event.target.value !== "" && wanted >= 0 && wanted <= 1) setThreshold(nearest(steps, wanted, Number));
});
// A number between two steps becomes the nearer one, and says so.
byId("value").addEventListener("change", (event) => { event.target.value = short(steps[at]); });
byId("reset").addEventListener("click", () => setThreshold(data.fitted));
byId("cut").value = short(100 * cut);
byId("cut").addEventListener("input", (event) => { if (event.target.value !== "") { cut = Number(event.target.value) / 100; callSamples(); } });
for (const id of ["sort", "label", "group", "errors", "find"]) byId(id)?.addEventListener("input", arrange);
byId("size").addEventListener("input", () => { byId("cards").style.setProperty("--side", `${side()}px`); inView.forEach(refresh); });
for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = element("button", { type: "button" }, head.textContent);
  button.addEventListener("click", () => { byId("sort").value = head.dataset.sort; arrange(); });
  head.replaceChildren(button);
}
cards.forEach((card, i) => { card.querySelector("button").addEventListener("click", () => open(i)); watcher.observe(card); });
byId("previous").addEventListener("click", () => stepSample(-1));
byId("next").addEventListener("click", () => stepSample(1));
byId("close").addEventListener("click", () => large.close());
large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
large.addEventListener("close", () => { const card = cards[opened]; opened = null; card?.querySelector("button").focus(); });
large.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select")) return;
  if (event.key === "ArrowRight") stepSample(1);
  if (event.key === "ArrowLeft") stepSample(-1);
});
addEventListener("resize", () => { if (opened !== null) open(opened); });
// Printed are all maps, not those in view.
addEventListener("beforeprint", () => { cards.forEach((_, i) => refresh(i)); document.querySelectorAll("details").forEach((node) => { node.open = true; }); });
setThreshold(data.fitted);
arrange();
// In the order in which they are shown, so that the first are there first; printing cannot wait for any.
(async () => {
  for (const i of [...order]) {
    await unpack(samples[i]);
    if (inView.has(i)) refresh(i);
    if (opened === i) fill(i);
  }
})();
