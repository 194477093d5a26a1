// What the pictures show: the curves of the chosen runs as traces of plotly.
const MARKERS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"]; // of runs
const DASHES = ["solid", "dash", "dot", "dashdot"]; // of splits
const NETWORK = "network";
const FEATURES = "last features"; // of each run the layer that its classifier reads
const EVERY = "all layers";
const DECADE = 10; // positive numbers that span more are drawn on a log axis
const NEAR_ONE = 0.95; // accuracies that all end above it are drawn as errors, so that 0.99 and 0.999 part
const CLASSES = 3;
const SIDES = { x: [-1.75, 1.75], y: [-1.6, 1.9] }; // of the plane, in lengths of a class mean
const SHORT = 30; // letters of a label that a legend has room for
const LINE = "#c4c9cf", INK = "#1b1f24";

async function unpacked(id) {
  const packed = atob($(id).textContent);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const unpackedRuns = new Map();
async function curvesOf(index) {
  if (!unpackedRuns.has(index)) unpackedRuns.set(index, JSON.parse(await unpacked(`run${index}`)));
  return unpackedRuns.get(index);
}

// plotly reads tags in its texts
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const isAccuracy = (metric) => /(^|_)accuracy$/.test(metric);
const union = (lists) => [...new Set(lists.flat())];
const titled = (metric) => metric.replace(/^ncc_/, "NCC ").replace("effective_depth", "effective depth").replace("_accuracy", " accuracy");

// The chosen runs with their curves, each with what tells it from the others.
function labelled(runs) {
  const names = ["experiment", "dataset", "model", "policy", "settings", "seed"];
  const differing = names.filter((name) => new Set(runs.map(({ index }) => cell(index, name))).size > 1);
  const labels = runs.map(({ index }) =>
    differing.map((name) => (name === "seed" ? `seed ${cell(index, name)}` : cell(index, name))).filter(Boolean).join(", "));
  const told = new Set(labels).size === runs.length && labels.every(Boolean);
  runs.forEach((run, i) => {
    run.letter = String.fromCharCode(65 + i);
    run.label = told ? labels[i] : cell(run.index, "run");
  });
  const long = runs.some(({ label }) => label.length > SHORT);
  runs.forEach((run) => (run.short = long ? run.letter : run.label)); // the list above the pictures says which letter is which
  const common = ["dataset", "model", "policy"].filter((name) => !differing.includes(name)).map((name) => cell(runs[0].index, name));
  if (!differing.includes("seed")) common.push(`seed ${cell(runs[0].index, "seed")}`);
  return common.filter(Boolean).join(", ");
}

const metricsOf = (runs) => union(runs.map(({ curves }) => Object.keys(curves.series)));
const splitsOf = (runs, metric) => union(runs.map(({ curves }) => Object.keys(curves.series[metric] ?? {})));
function layersOf({ curves }, metric, splits) {
  const there = new Set(splits.flatMap((split) => Object.keys(curves.series[metric]?.[split] ?? {})));
  return curves.layers.filter((layer) => there.has(layer));
}
const isOfNetwork = (runs, metric, splits) => runs.every((run) => layersOf(run, metric, splits).every((layer) => layer === NETWORK));
const fixedAt = ({ curves }, epoch) => new Set(curves.switches.filter(([at]) => at <= epoch).map(([, layer]) => layer));
const placeOf = (epochs, epoch) => epochs.findLastIndex((measured) => measured <= epoch); // -1 before the first

// By reduce: a call takes no more than some 100,000 arguments
const extent = (numbers) => numbers.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

// The axis that is meant by "as it suits", for these values
function suited(scale, metric, values) {
  const numbers = values.flat().filter((value) => value !== null);
  if (scale !== "auto" || !numbers.length) return scale === "auto" ? "value" : scale;
  const [least, most] = extent(numbers);
  if (isAccuracy(metric)) {
    const ends = values.map((series) => series.findLast((value) => value !== null)).filter((value) => value !== undefined);
    return extent(ends)[0] > NEAR_ONE && least < 1 ? "error" : "value";
  }
  return least > 0 && most / least > DECADE ? "log" : "value";
}

function drawnAs(scale, values) {
  if (scale === "value") return values;
  return values.map((value) => {
    const number = value === null || scale === "log" ? value : 1 - value;
    return number > 0 ? number : null; // a log axis has no place for it
  });
}

// { traces, scale, range } of a metric against the epoch, at one layer or at all.
function overEpochs(runs, { metric, splits, layer, scale }) {
  const series = [];
  runs.forEach((run, k) => {
    const all = layersOf(run, metric, splits);
    const wanted = layer === EVERY ? all : [layer === FEATURES ? run.curves.features : layer];
    splits.forEach((split, s) => wanted.forEach((name) => {
      const values = run.curves.series[metric]?.[split]?.[name];
      if (values) series.push({ run, k, split, s, name, at: all.indexOf(name), of: all.length, values });
    }));
  });
  const axis = suited(scale, metric, series.map(({ values }) => values));
  const several = runs.length > 1;
  const traces = series.map(({ run, k, split, s, name, at, of, values }) => {
    const color = several ? board.colours[k] : board.layers[Math.round((at / Math.max(of - 1, 1)) * (board.layers.length - 1))];
    const who = [several ? run.short : "", layer === EVERY || (several && layer === FEATURES) ? name : "", splits.length > 1 ? split : ""];
    const label = plain(who.filter(Boolean).join(", ") || `${name}, ${split}`);
    return {
      x: run.curves.epochs, y: drawnAs(axis, values), name: label, mode: "lines+markers",
      line: { color, dash: DASHES[s % DASHES.length], width: 1.6 },
      marker: { color, symbol: several ? MARKERS[k] : "circle", size: 5 },
      hovertemplate: `epoch %{x}: %{y:.4g}<extra>${label}</extra>`,
    };
  });
  return { traces, scale: axis, range: ends(traces.flatMap(({ y }) => y).filter((value) => value !== null), axis) };
}

// { traces, scale, range } of a metric against the layers, at an epoch; layers that are fixed by then are open squares.
function overLayers(runs, { metric, splits, scale, epoch }) {
  const series = [];
  runs.forEach((run, k) => splits.forEach((split, s) => {
    const at = placeOf(run.curves.epochs, epoch);
    const names = layersOf(run, metric, [split]);
    if (at >= 0 && names.length) series.push({ run, k, split, s, names, values: names.map((name) => run.curves.series[metric][split][name][at]) });
  }));
  // The axis is that of the whole training: it must not move with the slider.
  const whole = runs.flatMap(({ curves }) => splits.flatMap((split) => Object.values(curves.series[metric]?.[split] ?? {})));
  const axis = suited(scale, metric, whole);
  const several = runs.length > 1;
  const traces = series.map(({ run, k, split, s, names, values }) => {
    const fixed = fixedAt(run, epoch);
    const label = plain([several ? run.short : "", splits.length > 1 || !several ? split : ""].filter(Boolean).join(", "));
    return {
      x: names.map(plain), y: drawnAs(axis, values), name: label, mode: "lines+markers",
      line: { color: board.colours[several ? k : s], dash: DASHES[s % DASHES.length], width: 1.6 },
      marker: {
        color: board.colours[several ? k : s],
        symbol: names.map((name) => (fixed.has(name) ? "square-open" : several ? MARKERS[k] : "circle")),
        size: names.map((name) => (fixed.has(name) ? 12 : 7)), line: { width: names.map((name) => (fixed.has(name) ? 2.5 : 0)) },
      },
      hovertemplate: `%{x}: %{y:.4g}<extra>${label}</extra>`,
    };
  });
  const drawn = whole.flatMap((values) => drawnAs(axis, values)).filter((value) => value !== null);
  return { traces, scale: axis, range: ends(drawn, axis) };
}

// Of an axis that holds all these numbers, with a little room.
function ends(numbers, scale) {
  if (!numbers.length) return undefined;
  const placed = scale === "value" ? numbers : numbers.map(Math.log10);
  const [low, high] = extent(placed);
  const room = 0.05 * (high - low || 1);
  return [low - room, high + room];
}

// Three classes of one run in the plane of their means, at an epoch.
function inPlane(run, epoch) {
  const { plane } = run.curves;
  const at = Math.max(placeOf(plane.epochs, epoch), 0);
  const corners = [0, 1, 2, 3].map((i) => (Math.PI / 2) + (2 * Math.PI / CLASSES) * i);
  const spokes = corners.slice(0, CLASSES).flatMap((angle) => [[0, 0], [Math.cos(angle), Math.sin(angle)], [null, null]]);
  const triangle = [...corners.map((angle) => [Math.cos(angle), Math.sin(angle)]), [null, null], ...spokes];
  const within = (value, [low, high]) => Math.min(Math.max(value, low), high); // features beyond lie on the edge
  const xs = (points) => points.map(([x]) => x), ys = (points) => points.map(([, y]) => y);
  const traces = [{ x: xs(triangle), y: ys(triangle), mode: "lines", line: { color: LINE, width: 1.2 }, name: "simplex ETF", hoverinfo: "skip" }];
  for (let c = 0; c < CLASSES; c++) {
    const color = board.colours[c], symbol = MARKERS[c], group = { legendgroup: `class ${c}`, name: `class ${c}` };
    const samples = plane.sample[at]?.[c] ?? [], mean = plane.mean[at]?.[c], row = plane.row[at]?.[c];
    traces.push({ ...group, showlegend: false, mode: "markers", marker: { color, symbol, size: 5, opacity: 0.55 }, hoverinfo: "skip",
      x: samples.map(([x]) => within(x, SIDES.x)), y: samples.map(([, y]) => within(y, SIDES.y)) });
    if (row) traces.push({ ...group, showlegend: false, mode: "lines+markers", line: { color, width: 1.4 }, x: [0, row[0]], y: [0, row[1]],
      marker: { color, symbol: ["circle", "x-thin"], size: [0, 9], line: { color, width: 2.2 } }, hovertemplate: `row (%{x}, %{y})<extra>class ${c}</extra>` });
    if (mean) traces.push({ ...group, mode: "markers", x: [mean[0]], y: [mean[1]],
      marker: { color, symbol, size: 12, line: { color: INK, width: 1 } }, hovertemplate: `mean (%{x}, %{y})<extra>class ${c}</extra>` });
  }
  return traces;
}
