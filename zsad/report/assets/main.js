// Wires the choices to what is drawn.
function draw() {
  const where = `${dataset().title}, ${$("category").value}`;
  document.querySelectorAll(".where").forEach((node) => { node.textContent = where; });
  drawBars();
  drawCurves();
  drawHistograms();
  drawCost();
  drawCompare();
  drawExamples();
}

function chooseCategory() {
  const kept = new Set(cellsOf().map((c) => c.category));
  fill($("category"), dataset().categories.filter((c) => kept.has(c)).map((c) => [c, c]));
  draw();
}

function chooseDataset() {
  const found = board().cells.filter((c) => c.dataset === $("dataset").value);
  fill($("seed"), [...new Set(found.map((c) => c.seed))].sort((a, b) => a - b).map((s) => [s, s]));
  chooseCategory();
}

const hasPixels = (c) => Object.entries(c.metrics).some(([key, v]) => v !== null && data.levels[key] === "pixel");

// A dataset with masks shows most: it comes first.
function chooseColumns() {
  const labels = new Set(shown().map((m) => m.label));
  const kept = new Set(board().cells.filter((c) => labels.has(c.method)).map((c) => c.dataset));
  const found = board().datasets.filter((d) => kept.has(d.name));
  const rich = found.find((d) => board().cells.some((c) => c.dataset === d.name && hasPixels(c)));
  const before = kept.has($("dataset").value) ? $("dataset").value : rich?.name;
  fill($("dataset"), found.map((d) => [d.name, d.title]), before);
  chooseDataset();
}

function chooseBoard() {
  const kinds = [["false", "methods"], ["true", "rows of ablations"]];
  fill($("columns"), kinds.filter(([kind]) => board().methods.some((m) => String(m.ablation) === kind)));
  chooseColumns();
}

document.querySelectorAll("#overview table, #published details table").forEach(sortable);
drawRanking();
drawAgainst();
fill($("board"), data.boards.map((b, i) => [i, b.backbone]));
fill($("metric"), Object.entries(data.metrics));
$("board").addEventListener("change", chooseBoard);
$("columns").addEventListener("change", chooseColumns);
$("dataset").addEventListener("change", chooseDataset);
$("seed").addEventListener("change", chooseCategory);
$("category").addEventListener("change", draw);
$("metric").addEventListener("change", () => { drawBars(); drawCost(); });
$("fade").addEventListener("input", () => {
  document.documentElement.style.setProperty("--heat", $("fade").value / 100);
});
if (innerWidth < 600) document.querySelectorAll("#words, #overview details").forEach((d) => { d.open = false; });
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawBars(); drawCost(); } });
chooseBoard();
