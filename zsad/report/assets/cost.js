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

// Round milliseconds between two powers of ten, as fine as gives at most six.
function ticks(low, high) {
  const found = (steps) => {
    const all = [];
    for (let power = Math.floor(low); power <= high; power += 1) for (const step of steps) {
      const ms = Number((step * 10 ** power).toPrecision(2));
      if (Math.log10(ms) >= low && Math.log10(ms) <= high) all.push(ms);
    }
    return all;
  };
  const by = (step) => [...Array(Math.round(9 / step)).keys()].map((i) => 1 + i * step);
  return [by(0.1), by(0.2), by(0.5), by(1), [1, 2, 5], [1, 3], [1]].map(found).find((all) => all.length <= 6) || found([1]);
}

// Round percents between two, at most seven of them.
function levels(low, high) {
  const step = [0.5, 1, 2, 5, 10, 20].find((s) => Math.floor(high / s) - Math.ceil(low / s) < 7) ?? 25;
  const first = Math.ceil(low / step);
  return [...Array(Math.floor(high / step) - first + 1).keys()].map((i) => (first + i) * step);
}

// Where the name of a mark stands inside the box without lying on a mark or another name.
function besides(name, [left, middle], box, taken) {
  const wide = 6.2 * name.length, high = 13;
  const spot = (x, y) => ({ left: x, right: x + wide, top: y - high + 3, bottom: y + 3 });
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const inside = (a) => a.left >= box.left && a.right <= box.right + 12 && a.top >= box.top - 10 && a.bottom <= box.bottom;
  const within = Math.max(box.left, Math.min(left - wide / 2, box.right + 12 - wide));
  const tried = [];
  for (let off = 0; off < 240; off += 12) for (const sign of off ? [1, -1] : [1]) {
    for (const x of [left + 9, left - 9 - wide, within]) tried.push(spot(x, middle + 4 + sign * off));
  }
  return tried.find((a) => inside(a) && !taken.some((b) => meets(a, b))) || tried[0];
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
  for (const v of levels(100 * floor, 100 * top)) {
    root.append(svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: y(v / 100), y2: y(v / 100) }));
    root.append(svg("text", { class: "level", x: box.left - 6, y: y(v / 100) + 4, "text-anchor": "end" }, String(v)));
  }
  for (const ms of ticks(low, high)) {
    root.append(svg("line", { class: "gridline", x1: x(ms), x2: x(ms), y1: box.top, y2: box.bottom }));
    root.append(svg("text", { class: "tick", x: x(ms), y: box.bottom + 16, "text-anchor": "middle" }, String(ms)));
  }
  root.append(svg("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, "milliseconds per image (logarithmic)"));
  const placed = points.map((p) => ({ ...p, at: [x(p.ms), y(p.value)] }));
  const taken = placed.map(({ at: [left, middle] }) => ({ left: left - 7, right: left + 7, top: middle - 7, bottom: middle + 7 }));
  for (const p of placed) {
    const mark = svg("path", { d: SHAPES[numberOf(p.label) % SHAPES.length], fill: colour(p.label), transform: `translate(${p.at})` });
    mark.append(svg("title", {}, `${method(p.label).title}: ${percent(p.value)}, ${shortly(p.ms)} ms`));
    root.append(mark);
    const name = method(p.label).title, free = besides(name, p.at, box, taken);
    taken.push(free);
    if (Math.abs(free.bottom - 3 - p.at[1]) > 16) root.append(svg("line", { class: "gridline", x1: p.at[0], y1: p.at[1], x2: free.left, y2: free.bottom - 5 }));
    root.append(svg("text", { class: "name", x: free.left, y: free.bottom - 3 }, name));
  }
  const rows = points.map((p) => el("tr", {}, el("td", {}, method(p.label).title), el("td", {}, percent(p.value)), el("td", {}, shortly(p.ms))));
  const table = makeTable(["method", data.metrics[metric], "ms per image"], rows);
  $("points").replaceChildren(root, el("details", {}, el("summary", {}, "As a table"), el("div", { class: "wide" }, table)));
}
