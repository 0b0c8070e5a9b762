"use strict";
// Draws the chosen category from the embedded data.  Texts only ever become text nodes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#2f6fde", "#e07a1f", "#2a9d5c", "#b5479c", "#c0392b", "#7a6ff0", "#8a6d3b", "#159aa8", "#d4a017", "#5f7d8c", "#e26fa5", "#4b8f29"];
  const METRICS = { image_auroc: "image AUROC", image_ap: "image AP", image_f1max: "image F1-max", pixel_auroc: "pixel AUROC", pixel_ap: "pixel AP", pixel_f1max: "pixel F1-max", pixel_aupro: "pixel AUPRO" };
  const CURVES = { image_roc: "Image ROC", image_pr: "Image precision-recall", pixel_roc: "Pixel ROC", pixel_pr: "Pixel precision-recall", pixel_pro: "Pixel PRO" };
  const $ = (id) => document.getElementById(id);
  const el = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
    node.append(...children);
    return node;
  };
  const svg = (name, attributes = {}, text = "") => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
    if (text) node.textContent = text;
    return node;
  };
  const percent = (v) => (v === null || v === undefined ? "–" : (100 * v).toFixed(1));
  const fill = (select, items, keep) => {
    const before = select.value;
    select.replaceChildren(...items.map(([value, text]) => el("option", { value }, text)));
    if (keep && items.some(([value]) => String(value) === before)) select.value = before;
  };

  const board = () => data.boards[Number($("board").value)];
  const colour = (label) => COLOURS[board().methods.findIndex((m) => m.label === label) % COLOURS.length];
  const title = (label) => board().methods.find((m) => m.label === label).title;
  const chosen = (category) => board().cells.filter((c) => c.dataset === $("dataset").value && String(c.seed) === $("seed").value && (category === undefined || c.category === category));
  const nothing = (text) => el("p", { class: "nothing" }, text);
  const legend = (labels) => el("div", { class: "legend" }, ...labels.map((l) => el("span", {}, el("i", { style: `background:${colour(l)}` }), title(l))));

  function frame(xName, yName, width = 330, height = 250) {
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const box = { left: 46, top: 8, right: width - 8, bottom: height - 32 };
    const x = (v) => box.left + v * (box.right - box.left);
    const y = (v) => box.bottom - v * (box.bottom - box.top);
    for (const t of [0, 0.25, 0.5, 0.75, 1]) {
      root.append(svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: y(t), y2: y(t) }));
      root.append(svg("text", { x: box.left - 5, y: y(t) + 4, "text-anchor": "end" }, String(t)));
    }
    root.append(svg("text", { x: x(0.5), y: height - 4, "text-anchor": "middle" }, xName));
    root.append(svg("text", { x: 10, y: y(0.5), "text-anchor": "middle", transform: `rotate(-90 10 ${y(0.5)})` }, yName));
    return { root, x, y, box };
  }

  function drawBars() {
    const metric = $("metric").value;
    const dataset = board().datasets.find((d) => d.name === $("dataset").value);
    const cells = chosen();
    const labels = board().methods.map((m) => m.label).filter((l) => cells.some((c) => c.method === l));
    const rows = dataset.categories.filter((k) => cells.some((c) => c.category === k && c.metrics[metric] !== null));
    if (!rows.length) return $("bars").replaceChildren(nothing(reason(cells, metric)));
    const bar = 13, gap = 12, left = 118, width = Math.max(320, Math.min(820, $("bars").clientWidth || 640));
    const height = rows.length * (labels.length * bar + gap) + 24;
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", style: `max-width:${width}px` });
    const x = (v) => left + v * (width - left - 48);
    for (const t of [0, 0.25, 0.5, 0.75, 1]) {
      root.append(svg("line", { class: "gridline", x1: x(t), x2: x(t), y1: 0, y2: height - 20 }));
      root.append(svg("text", { x: x(t), y: height - 6, "text-anchor": "middle" }, String(100 * t)));
    }
    rows.forEach((category, i) => {
      const top = i * (labels.length * bar + gap) + gap / 2;
      root.append(svg("text", { x: left - 8, y: top + (labels.length * bar) / 2 + 4, "text-anchor": "end" }, category));
      labels.forEach((label, j) => {
        const cell = cells.find((c) => c.category === category && c.method === label);
        const value = cell ? cell.metrics[metric] : null;
        const y = top + j * bar;
        if (value !== null) root.append(svg("rect", { x: x(0), y: y + 1, width: Math.max(0, x(value) - x(0)), height: bar - 2, fill: colour(label) }));
        root.append(svg("text", { x: (value === null ? x(0) : x(value)) + 4, y: y + bar - 3 }, percent(value)));
      });
    });
    $("bars").replaceChildren(legend(labels), root);
  }

  function reason(cells, metric) {
    const texts = [...new Set(cells.map((c) => c.undefined[metric]).filter(Boolean))];
    return `${METRICS[metric]} is not defined here${texts.length ? ": " + texts.join("; ") : ""}.`;
  }

  function drawCurves() {
    const cells = chosen($("category").value);
    const figures = Object.entries(CURVES).map(([name, text]) => {
      const lines = cells.filter((c) => c.curves[name]);
      if (!lines.length) return null;
      const first = lines[0].curves[name];
      const { root, x, y, box } = frame(first.x_name, first.y_name);
      const most = name === "pixel_pro" ? Math.max(...lines.map((c) => Math.max(...c.curves[name].x))) || 1 : 1;
      root.append(svg("text", { x: box.left, y: box.bottom + 14, "text-anchor": "middle" }, "0"));
      root.append(svg("text", { x: box.right, y: box.bottom + 14, "text-anchor": "middle" }, most.toPrecision(2).replace(/\.?0+$/, "")));
      if (name.endsWith("_roc")) root.append(svg("path", { class: "axis", "stroke-dasharray": "3 4", d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }));
      for (const cell of lines) {
        const line = cell.curves[name];
        const d = line.x.map((v, i) => `${i ? "L" : "M"}${x(v / most).toFixed(1)} ${y(line.y[i]).toFixed(1)}`).join("");
        root.append(svg("path", { d, fill: "none", stroke: colour(cell.method), "stroke-width": 1.8 }));
      }
      return el("figure", {}, root, el("figcaption", {}, text));
    }).filter(Boolean);
    const labels = cells.map((c) => c.method);
    $("lines").replaceChildren(...(figures.length ? figures : [nothing("No curve is defined here: it takes normal and anomalous images (or pixels).")]));
    const before = $("lines").previousElementSibling;
    if (before.className === "legend") before.remove();
    if (figures.length) $("lines").before(legend(labels));
  }

  function drawHistograms() {
    const figures = chosen($("category").value).filter((c) => c.histogram).map((cell) => {
      const h = cell.histogram;
      const n = h.normal.length, most = Math.max(1, ...h.normal, ...h.anomalous);
      const root = svg("svg", { viewBox: "0 0 330 130", role: "img" });
      const w = 314 / n;
      const put = (counts, fill) => counts.forEach((v, i) => { if (v) root.append(svg("rect", { x: 8 + i * w, y: 105 - (95 * v) / most, width: w - 1, height: (95 * v) / most, fill, "fill-opacity": 0.6 })); });
      put(h.normal, "#2f6fde");
      put(h.anomalous, "#e07a1f");
      root.append(svg("line", { class: "axis", x1: 8, x2: 322, y1: 105, y2: 105 }));
      root.append(svg("text", { x: 8, y: 120 }, h.low.toPrecision(3)));
      root.append(svg("text", { x: 322, y: 120, "text-anchor": "end" }, h.high.toPrecision(3)));
      return el("figure", {}, root, el("figcaption", {}, `${title(cell.method)}: ${cell.normal} normal, ${cell.anomalous} anomalous`));
    });
    $("histograms").replaceChildren(...(figures.length ? figures : [nothing("No image scores are stored.")]));
  }

  function drawExamples() {
    const blocks = chosen($("category").value).filter((c) => c.examples.length).map((cell) => {
      const cards = cell.examples.map((e) => {
        const reasons = e.explanations.slice(0, 5).map((r) => el("li", {}, r.text, el("span", {}, ` ${r.similarity.toFixed(3)} (${r.source})${r.note ? " " + r.note : ""}`)));
        const truth = e.label ? `anomalous${e.defect ? " (" + e.defect + ")" : ""}` : "normal";
        return el("div", { class: "card" },
          el("div", { class: "pair" }, el("img", { src: e.picture, alt: "picture " + e.uid, loading: "lazy" }), el("img", { src: e.heat, alt: "heat map of " + e.uid, loading: "lazy" })),
          el("b", {}, e.kind), `: score ${e.score.toFixed(3)}, truly ${truth}`, el("br"), el("small", {}, e.uid),
          reasons.length ? el("ol", {}, ...reasons) : "");
      });
      return el("div", { class: "method" }, el("h3", {}, title(cell.method)), el("div", { class: "cards" }, ...cards));
    });
    $("examples").replaceChildren(...(blocks.length ? blocks : [nothing("No pictures are stored for this category.")]));
  }

  function draw() { drawBars(); drawCurves(); drawHistograms(); drawExamples(); }
  function chooseCategory() {
    const kept = new Set(chosen().map((c) => c.category));
    const dataset = board().datasets.find((d) => d.name === $("dataset").value);
    fill($("category"), dataset.categories.filter((c) => kept.has(c)).map((c) => [c, c]), true);
    draw();
  }
  function chooseDataset() {
    const seeds = [...new Set(board().cells.filter((c) => c.dataset === $("dataset").value).map((c) => c.seed))].sort((a, b) => a - b);
    fill($("seed"), seeds.map((s) => [s, s]), true);
    chooseCategory();
  }
  function chooseBoard() {
    fill($("dataset"), board().datasets.map((d) => [d.name, d.title]), true);
    chooseDataset();
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const plain = [...body.rows].filter((r) => !r.classList.contains("mean"));
      const means = [...body.rows].filter((r) => r.classList.contains("mean"));
      const value = (row) => { const text = row.cells[column].textContent; const n = parseFloat(text.replace("(", "")); return column && !Number.isNaN(n) ? n : text; };
      plain.sort((a, b) => {
        const [p, q] = [value(a), value(b)];
        const order = typeof p === "number" && typeof q === "number" ? p - q : typeof p === typeof q ? String(p).localeCompare(String(q)) : typeof p === "number" ? 1 : -1;
        return down ? -order : order;
      });
      body.replaceChildren(...plain, ...means);
    }));
  }

  document.querySelectorAll("#overview table").forEach(sortable);
  fill($("board"), data.boards.map((b, i) => [i, b.backbone]));
  fill($("metric"), Object.entries(METRICS));
  $("board").addEventListener("change", chooseBoard);
  $("dataset").addEventListener("change", chooseDataset);
  $("seed").addEventListener("change", chooseCategory);
  $("category").addEventListener("change", draw);
  $("metric").addEventListener("change", drawBars);
  const usable = data.boards.length > 0;
  if (usable) chooseBoard();
})();
