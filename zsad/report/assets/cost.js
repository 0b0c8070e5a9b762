// The chosen figure against the time that a method takes for an image.
const SHAPES = ["M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z", "M-5 -5H5V5H-5Z", "M0 -6L6 5H-6Z", "M0 -6L6 0L0 6L-6 0Z", "M-6 -5H6L0 6Z"];
const shortly = (v) => (v >= 100 ? String(Math.round(v)) : String(Number(v.toPrecision(2))));
const meanOf = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

function costs(metric) {
  return shown().map((m) => {
    const cells = cellsOf().filter((c) => c.method === m.label);
    const figures = cells.map((c) => c.metrics[metric]).filter((v) => typeof v === "number");
    const times = cells.map((c) => c.ms).filter((v) => typeof v === "number");
    return { label: m.label, value: figures.length ? meanOf(figures) : null, ms: times.length ? meanOf(times) : null };
  }).filter((p) => p.value !== null && p.ms !== null);
}

function drawCost() {
  document.querySelectorAll(".of-dataset").forEach((node) => { node.textContent = dataset().title; });
  const metric = $("metric").value;
  const points = costs(metric);
  if (!points.length) return $("points").replaceChildren(nothing("No times are stored for this figure."));
  const width = Math.min(720, $("points").clientWidth || 640), height = 300;
  const box = { left: 48, right: width - 16, top: 14, bottom: height - 40 };
  const low = Math.log10(Math.min(...points.map((p) => p.ms)) / 1.3), high = Math.log10(Math.max(...points.map((p) => p.ms)) * 1.3);
  const floor = Math.max(0, Math.min(...points.map((p) => p.value)) - 0.05), top = Math.min(1, Math.max(...points.map((p) => p.value)) + 0.05);
  const x = (ms) => box.left + ((Math.log10(ms) - low) / (high - low)) * (box.right - box.left);
  const y = (v) => box.bottom - ((v - floor) / (top - floor)) * (box.bottom - box.top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", style: `max-width:${width}px`, "aria-label": "accuracy against milliseconds; the table below says the same" });
  for (let i = 0; i <= 4; i += 1) {
    const v = floor + ((top - floor) * i) / 4;
    root.append(svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: y(v), y2: y(v) }));
    root.append(svg("text", { x: box.left - 6, y: y(v) + 4, "text-anchor": "end" }, percent(v)));
    const ms = 10 ** (low + ((high - low) * i) / 4);
    root.append(svg("text", { x: x(ms), y: box.bottom + 16, "text-anchor": "middle" }, shortly(ms)));
  }
  root.append(svg("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, "milliseconds per image"));
  const taken = []; // where texts stand, so that none lies on another
  for (const p of [...points].sort((a, b) => b.value - a.value)) {
    const mark = svg("path", { d: SHAPES[numberOf(p.label) % SHAPES.length], fill: colour(p.label), transform: `translate(${x(p.ms)} ${y(p.value)})` });
    mark.append(svg("title", {}, `${method(p.label).title}: ${percent(p.value)}, ${shortly(p.ms)} ms`));
    root.append(mark);
    const right = x(p.ms) > width * 0.66;
    let line = y(p.value) + 4;
    while (taken.some(([at, side]) => side === right && Math.abs(at - line) < 12)) line += 12;
    taken.push([line, right]);
    root.append(svg("text", { x: x(p.ms) + (right ? -9 : 9), y: line, "text-anchor": right ? "end" : "start" }, method(p.label).title));
  }
  const rows = points.map((p) => el("tr", {}, el("td", {}, method(p.label).title), el("td", {}, percent(p.value)), el("td", {}, shortly(p.ms))));
  const table = makeTable(["method", data.metrics[metric], "ms per image"], rows);
  $("points").replaceChildren(root, el("details", {}, el("summary", {}, "As a table"), el("div", { class: "wide" }, table)));
}
