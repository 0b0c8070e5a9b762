// Bars, curves and histograms of the chosen dataset and category.
const CURVES = {
  image_roc: ["ROC of images", "Share of the anomalous images found against share of the normal ones reported by mistake, at every threshold. Nearer to the top left is better; dashed: guessing."],
  image_pr: ["Precision and recall of images", "How many of the reported images are anomalous, against the share of the anomalous ones found. Nearer to the top right is better; dashed: guessing."],
  pixel_roc: ["ROC of pixels", "The same as for images, for pixels."],
  pixel_pr: ["Precision and recall of pixels", "The same as for images, for pixels. Low for most methods, since defects are small."],
  pixel_pro: ["PRO", "How much of each defect is covered on average, against the share of sound pixels reported by mistake. Nearer to the top left is better."],
};

function frame(xName, yName, most) {
  const [width, height] = [330, 250];
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${yName} against ${xName}` });
  const box = { left: 46, top: 8, right: width - 12, bottom: height - 34 };
  const x = (v) => box.left + v * (box.right - box.left);
  const y = (v) => box.bottom - v * (box.bottom - box.top);
  for (const t of [0, 0.25, 0.5, 0.75, 1]) {
    root.append(svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: y(t), y2: y(t) }));
    root.append(svg("text", { x: box.left - 5, y: y(t) + 4, "text-anchor": "end" }, String(t)));
  }
  for (const t of [0, 0.5, 1]) {
    root.append(svg("text", { x: x(t), y: box.bottom + 14, "text-anchor": "middle" }, String(Number((t * most).toPrecision(2)))));
  }
  root.append(svg("text", { x: x(0.5), y: height - 4, "text-anchor": "middle" }, xName));
  root.append(svg("text", { x: 10, y: y(0.5), "text-anchor": "middle", transform: `rotate(-90 10 ${y(0.5)})` }, yName));
  return { root, x, y };
}

function drawBars() {
  const metric = $("metric").value;
  const cells = cellsOf();
  const labels = shown().map((m) => m.label).filter((l) => cells.some((c) => c.method === l));
  const rows = dataset().categories.filter((k) => cells.some((c) => c.category === k && typeof c.metrics[metric] === "number"));
  if (!rows.length) return $("bars").replaceChildren(nothing(whyUndefined(cells, metric)));
  const room = $("bars").clientWidth || 640;
  const longest = Math.max(...rows.map((r) => r.length));
  const left = Math.min(14 + 6.2 * longest, 0.36 * room), width = Math.min(820, room);
  const bar = 13, gap = 12, high = labels.length * bar + gap;
  const height = rows.length * high + 24;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "bars by category", style: `max-width:${width}px` });
  const x = (v) => left + v * (width - left - 40);
  for (const t of [0, 0.25, 0.5, 0.75, 1]) {
    root.append(svg("line", { class: "gridline", x1: x(t), x2: x(t), y1: 0, y2: height - 20 }));
    root.append(svg("text", { x: x(t), y: height - 6, "text-anchor": "middle" }, String(100 * t)));
  }
  let printed = false;
  rows.forEach((category, i) => {
    const top = i * high + gap / 2;
    const room = Math.floor((left - 14) / 6.2);
    const short = category.length > room ? `${category.slice(0, room - 1)}…` : category;
    const name = svg("text", { x: left - 8, y: top + (labels.length * bar) / 2 + 4, "text-anchor": "end", class: "pick", tabindex: 0, role: "button" });
    name.append(short, svg("title", {}, category));
    const pick = () => { $("category").value = category; draw(); $("curves").scrollIntoView(); };
    name.addEventListener("click", pick);
    name.addEventListener("keydown", (e) => { if (e.key === "Enter") pick(); });
    root.append(name);
    labels.forEach((label, j) => {
      const cell = cells.find((c) => c.category === category && c.method === label);
      const value = cell?.metrics[metric] ?? null;
      const paper = cell?.published[metric];
      const y = top + j * bar;
      if (value !== null) {
        const rect = svg("rect", { x: x(0), y: y + 1, width: Math.max(0, x(value) - x(0)), height: bar - 2, fill: colour(label) });
        rect.append(svg("title", {}, `${method(label).title} on ${category}: ${percent(value)}`));
        root.append(rect);
      }
      if (paper !== undefined) {
        printed = true;
        root.append(svg("line", { class: "paper", x1: x(paper), x2: x(paper), y1: y, y2: y + bar }));
      }
      const after = Math.max(value ?? 0, paper ?? 0);
      root.append(svg("text", { x: x(after) + 4, y: y + bar - 3 }, figureOf(cell, metric)));
    });
  });
  const note = printed ? el("p", { class: "notes" }, "The upright stroke is the figure that the paper prints.") : "";
  $("bars").replaceChildren(legend(labels), root, note);
}

// A record without the metric is another thing than one where it is undefined.
const figureOf = (cell, metric) => (cell && !(metric in cell.metrics) ? NOT_COMPUTED : percent(cell?.metrics[metric]));

function whyUndefined(cells, metric) {
  if (cells.length && cells.every((c) => !(metric in c.metrics))) return `${data.metrics[metric]} was not computed here.`;
  const texts = [...new Set(cells.map((c) => c.undefined[metric]).filter(Boolean))];
  return `${data.metrics[metric]} is not defined here${texts.length ? ": " + texts.slice(0, 3).join("; ") : ""}.`;
}

function drawCurves() {
  const cells = cellsOf($("category").value);
  const figures = Object.entries(CURVES).map(([name, [title, says]]) => {
    const lines = cells.filter((c) => c.curves[name]);
    if (!lines.length) return null;
    const first = lines[0].curves[name];
    const reach = Math.max(...lines.map((c) => Math.max(...c.curves[name].x))) || 1;
    const most = name === "pixel_pro" ? reach : 1;
    const { root, x, y } = frame(first.x_name, first.y_name, most);
    const guess = (d) => root.append(svg("path", { class: "guess", d }));
    if (name.endsWith("_roc")) guess(`M${x(0)} ${y(0)}L${x(1)} ${y(1)}`);
    if (name === "pixel_pro") guess(`M${x(0)} ${y(0)}L${x(1)} ${y(most)}`);
    if (name === "image_pr") {
      const level = y(lines[0].anomalous / (lines[0].normal + lines[0].anomalous));
      guess(`M${x(0)} ${level}L${x(1)} ${level}`);
    }
    for (const cell of lines) {
      const line = cell.curves[name];
      const d = line.x.map((v, i) => `${i ? "L" : "M"}${x(v / most).toFixed(1)} ${y(line.y[i]).toFixed(1)}`).join("");
      const path = svg("path", { class: "curve", d, stroke: colour(cell.method), "stroke-dasharray": dash(cell.method) });
      path.append(svg("title", {}, method(cell.method).title));
      root.append(path);
    }
    return el("figure", {}, el("b", {}, title), root, el("figcaption", {}, says));
  }).filter(Boolean);
  const all = el("div", { class: "charts" }, ...figures);
  $("lines").replaceChildren(...(figures.length
    ? [legend(cells.map((c) => c.method)), all]
    : [nothing("No curve is defined here: it takes normal and anomalous images (or pixels).")]));
}

function drawHistograms() {
  const figures = cellsOf($("category").value).filter((c) => c.histogram).map((cell) => {
    const h = cell.histogram;
    const n = h.normal.length, most = Math.max(1, ...h.normal, ...h.anomalous);
    const root = svg("svg", { viewBox: "0 0 330 130", role: "img", "aria-label": `image scores of ${method(cell.method).title}` });
    const step = 300 / n, left = 22, base = 105;
    const put = (counts, name) => counts.forEach((v, i) => {
      if (!v) return;
      const rect = svg("rect", { class: `bar ${name}`, x: left + i * step, y: base - (95 * v) / most, width: step - 1, height: (95 * v) / most });
      rect.append(svg("title", {}, `${v} ${name}`));
      root.append(rect);
    });
    put(h.normal, "normal");
    put(h.anomalous, "anomalous");
    root.append(svg("line", { class: "axis", x1: left, x2: left + 300, y1: base, y2: base }));
    root.append(svg("text", { x: left - 4, y: 16, "text-anchor": "end" }, String(most)));
    root.append(svg("text", { x: left - 4, y: base, "text-anchor": "end" }, "0"));
    root.append(svg("text", { x: left, y: base + 15 }, h.low.toPrecision(3)));
    root.append(svg("text", { x: left + 150, y: base + 15, "text-anchor": "middle" }, "score"));
    root.append(svg("text", { x: left + 300, y: base + 15, "text-anchor": "end" }, h.high.toPrecision(3)));
    const counts = `${cell.normal} normal, ${cell.anomalous} anomalous images`;
    return el("figure", {}, el("b", {}, method(cell.method).title), root, el("figcaption", {}, counts));
  });
  $("histograms").replaceChildren(...(figures.length ? figures : [nothing("No image scores are stored.")]));
}
