// The pictures, and what chooses among them. Nothing is drawn before the table is there.
let runs = []; // the chosen ones with their curves
let common = ""; // what they share
let turn = 0; // a later choice overtakes one whose curves are still being unpacked
let steps = []; // the epochs that the slider stops at
const CONFIG = { responsive: true, displaylogo: false, 
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] }; // none that sends the picture away
const FONT = { family: 'system-ui, "Segoe UI", "Noto Sans", sans-serif', size: 12, color: INK };
const AXIS = { gridcolor: "#e8ebee", zeroline: false, linecolor: LINE, ticks: "outside", tickcolor: LINE, automargin: true };

const now = () => steps[$("slider").valueAsNumber] ?? 0;
const splitsNow = () => ($("split").value ? [$("split").value] : splitsOf(runs, $("metric").value));

function options(id, values, fallback) {
  const select = $(id), wanted = state[id];
  select.replaceChildren(...values.map(([value, text]) => element("option", { value, textContent: text })));
  select.value = values.some(([value]) => value === wanted) ? wanted : fallback;
}

function frame(more) {
  return { font: FONT, paper_bgcolor: "#fff", plot_bgcolor: "#fff", margin: { l: 8, r: 12, t: 34, b: 8 }, hovermode: "closest",
    legend: { orientation: "h", y: -0.22, yanchor: "top", x: 0, font: { size: 11 }, itemwidth: 40 }, ...more };
}

function ofMetric(scale, range) {
  const name = titled($("metric").value);
  const log = { type: "log", dtick: range && range[1] - range[0] > 2 ? 1 : "D2", exponentformat: "power" }; // decades, or 1, 2, 5
  return { ...AXIS, range, title: { text: plain(scale === "error" ? `1 − ${name}` : name), standoff: 6 }, ...(scale === "value" ? { type: "linear" } : log) };
}

// Vertical lines: where the slider stands, and where layers were fixed while the chosen runs trained.
function lines() {
  const at = new Map(); // epoch -> layers, and the colour of the run that fixes them: ink where several do
  runs.forEach(({ curves }, k) => {
    for (const [epoch, layer] of curves.switches.filter(([epoch]) => epoch > 0)) {
      const { layers = new Set(), run = k } = at.get(epoch) ?? {};
      at.set(epoch, { layers: layers.add(layer), run: run === k ? k : -1 });
    }
  });
  const colour = (run) => (runs.length > 1 && run >= 0 ? board.colours[run] : INK);
  const line = (x, color, dash) => ({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, layer: "below", line: { color, dash, width: 1 } });
  return {
    shapes: [line(now(), "#8b949e", "solid"), ...[...at].map(([epoch, { run }]) => line(epoch, colour(run), "dot"))],
    annotations: [...at].map(([epoch, { layers, run }]) => ({ x: epoch, y: 1, xref: "x", yref: "paper", yanchor: "bottom", textangle: at.size > 2 ? -90 : 0,
      showarrow: false, font: { size: 10, color: colour(run) }, text: plain(`${[...layers].join(", ")} fixed`) })),
  };
}

function drawEpochs() {
  const metric = $("metric").value, layer = $("layer").value, splits = splitsNow();
  const { traces, scale, range } = overEpochs(runs, { metric, splits, layer, scale: $("scale").value });
  const where = layer === NETWORK ? "" : layer === EVERY ? ", layer by layer" : layer === FEATURES ? ", at the last features" : `, at ${layer}`;
  $("over_title").textContent = `${titled(metric)}${where} (${splits.join(", ")})${common ? `: ${common}` : ""}`;
  const labels = lines();
  const top = labels.annotations.some(({ textangle }) => textangle) ? 90 : 34;
  Plotly.react("over", traces, frame({ xaxis: { ...AXIS, title: { text: "epoch" } }, yaxis: ofMetric(scale, range), margin: { l: 8, r: 12, t: top, b: 8 },
    showlegend: true, ...labels }), CONFIG);
}

function drawLayers() {
  const metric = $("metric").value, splits = splitsNow();
  const { traces, scale, range } = overLayers(runs, { metric, splits, scale: $("scale").value, epoch: now() });
  $("depth_title").textContent = isOfNetwork(runs, metric, splits) ? `${titled(metric)} is one number of the whole network`
    : `${titled(metric)} by layer after epoch ${now()} (${splits.join(", ")})${common ? `: ${common}` : ""}`;
  const names = union(runs.map((run) => layersOf(run, metric, splits))).map(plain);
  Plotly.react("depth", traces, frame({ xaxis: { ...AXIS, type: "category", categoryorder: "array", categoryarray: names },
    yaxis: ofMetric(scale, range), showlegend: true }), CONFIG);
}

function drawPlane() {
  const run = runs.find(({ index }) => String(index) === $("plane_of").value);
  $("plane").hidden = !run;
  $("plane_at").textContent = run ? ` after epoch ${now()}` : "";
  if (!run) return;
  const none = { visible: false, fixedrange: true };
  Plotly.react("plane", inPlane(run, now()), frame({ showlegend: true,
    xaxis: { ...none, range: SIDES.x }, yaxis: { ...none, range: SIDES.y, scaleanchor: "x" },
    legend: { orientation: "h", y: -0.02, yanchor: "top", x: 0 } }), CONFIG);
}

// The layers that one may choose: one of the whole network has no choice.
function layerChoices() {
  const metric = $("metric").value, splits = splitsNow();
  const there = union(runs.map((run) => layersOf(run, metric, splits)));
  const features = runs.some((run) => run.curves.features && layersOf(run, metric, splits).includes(run.curves.features));
  const several = there.length > 1;
  const values = [...(several ? [EVERY] : []), ...(features && several ? [FEATURES] : []), ...there];
  options("layer", values.map((value) => [value, value]), several && runs.length === 1 ? EVERY : features ? FEATURES : values[0]);
  $("layer").disabled = values.length < 2;
}

function drawAll() {
  $("epoch").textContent = now();
  drawEpochs();
  drawLayers();
  drawPlane();
}

function moved() {
  state.epoch = now() === steps.at(-1) ? null : now(); // the last one stays the last one of a page that grows
  remember();
  $("epoch").textContent = now();
  drawLayers();
  drawPlane();
  Plotly.relayout("over", { "shapes[0].x0": now(), "shapes[0].x1": now() });
}

async function refresh() {
  const mine = ++turn;
  const found = await Promise.all([...chosen].filter((index) => board.drawn[index]).map(async (index) => ({ index, curves: await curvesOf(index) })));
  if (mine !== turn) return;
  runs = found;
  $("pictures").hidden = !runs.length;
  $("chosen").replaceChildren();
  if (!runs.length) {
    $("note").textContent = board.drawn.some(Boolean) ? "Tick a run in the table to draw it." : "No run has measured anything yet.";
    return;
  }
  $("note").textContent = "";
  common = labelled(runs);
  runs.forEach(({ index, label, letter }, k) => {
    const off = element("button", { type: "button", textContent: "×" });
    off.setAttribute("aria-label", `draw ${label} no more`);
    off.addEventListener("click", () => choose(index, false));
    const item = element("li", {}, element("span", { textContent: runs.length > 1 ? `${letter}: ${label}` : cell(index, "run") }), off);
    item.style.borderLeftColor = runs.length > 1 ? board.colours[k] : INK;
    $("chosen").append(item);
  });
  const metrics = metricsOf(runs);
  options("metric", metrics.map((name) => [name, titled(name)]), ["nc1", "ncc_accuracy", "r2"].find((name) => metrics.includes(name)) ?? metrics[0]);
  const splits = splitsOf(runs, $("metric").value);
  options("split", [...(splits.length > 1 ? [["", "all"]] : []), ...splits.map((name) => [name, name])], splits.length > 1 ? "" : splits[0]);
  $("scale").value = state.scale ?? "auto";
  layerChoices();
  steps = union(runs.map(({ curves }) => curves.epochs)).sort((a, b) => a - b);
  $("slider").max = steps.length - 1;
  $("slider").value = state.epoch == null ? steps.length - 1 : Math.max(placeOf(steps, state.epoch), 0);
  const planes = runs.filter(({ curves }) => curves.plane);
  options("plane_of", planes.map(({ index, label, letter }) => [String(index), `${letter}: ${label}`]), planes.length ? String(planes[0].index) : "");
  $("plane_of").hidden = planes.length < 2;
  $("no_plane").hidden = planes.length > 0;
  const long = runs.filter(({ curves }) => curves.measured > curves.epochs.length);
  $("thin").textContent = long.length ? `Of longer runs ${board.most_epochs} epochs are drawn, evenly spaced: ${long.map(({ label, curves }) => `${label}: of ${curves.measured}`).join("; ")}.` : "";
  drawAll();
  document.body.dataset.drawn = runs.length; // seen by tests
}

for (const id of ["metric", "split", "layer", "scale", "plane_of"]) {
  $(id).addEventListener("change", () => {
    state[id] = $(id).value;
    remember();
    id === "plane_of" ? drawPlane() : refresh();
  });
}
$("slider").addEventListener("input", moved);

async function begin() {
  if (typeof DecompressionStream === "undefined") {
    $("note").textContent = "This browser is too old for the pictures: they need Chrome 110, Firefox 113, Safari 16.4, or later.";
    return;
  }
  document.head.append(element("script", { textContent: await unpacked("library") }));
  document.addEventListener("chosen", refresh);
  await refresh();
}
begin().finally(loadAgain);
