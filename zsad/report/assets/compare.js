// All pictures of a category by every method: thresholds, false alarms, misses, and a gallery.
const own = new Map(); // thresholds by hand: place -> number
const placeOf = (cell) => [$("board").value, cell.dataset, cell.category, cell.seed, cell.method].join("|");
const compared = () => cellsOf($("category").value).filter((c) => c.scores.length);
const listed = () => board().categories.find((c) => c.dataset === $("dataset").value && c.category === $("category").value);

// From where on a method reports a picture, so that at most the allowed share of the normal ones is.
function limitOf(cell) {
  const given = own.get(placeOf(cell));
  if (given !== undefined) return { value: given, from: true };
  const { labels } = listed();
  const normal = cell.scores.filter((s, i) => s !== null && labels[i] === 0).sort((a, b) => b - a);
  const allowed = Math.floor((Number($("allowed").value) / 100) * normal.length + 1e-9);
  return { value: normal.length > allowed ? normal[allowed] : -Infinity, from: false };
}
const reports = (score, limit) => (limit.from ? score >= limit.value : score > limit.value);

// For every picture what the method says: true, false, or null without a score.
const said = (cell, limit = limitOf(cell)) => cell.scores.map((s) => (s === null ? null : reports(s, limit)));

// What is written for a limit: the shortest number that decides as it does of every picture.
const written = (cell, limit) => shortest(limit.value, (near) =>
  cell.scores.every((s) => s === null || reports(s, { ...limit, value: near }) === reports(s, limit)));

function counts(cell) {
  const { labels } = listed();
  const found = { falseAlarms: 0, missed: 0, found: 0, passed: 0 };
  said(cell).forEach((reported, i) => {
    if (reported === null) return;
    if (labels[i]) found[reported ? "found" : "missed"] += 1;
    else found[reported ? "falseAlarms" : "passed"] += 1;
  });
  return found;
}

const typeOf = (i) => (listed().labels[i] ? listed().defects[i] || "anomalous" : "");
const typesOf = () => [...new Set(listed().labels.map((label, i) => typeOf(i)))].filter(Boolean).sort();

// The share of pairs (anomalous of a type, normal) that a method orders rightly; ties count half.
function partedBy(cell, type) {
  const { labels } = listed();
  const normal = cell.scores.filter((s, i) => s !== null && labels[i] === 0);
  const anomalous = cell.scores.filter((s, i) => s !== null && typeOf(i) === type);
  if (!normal.length || !anomalous.length) return null;
  let right = 0;
  for (const a of anomalous) for (const n of normal) right += a > n ? 1 : a === n ? 0.5 : 0;
  return right / (anomalous.length * normal.length);
}

function drawConfusion() {
  $("allowed-said").textContent = `${$("allowed").value} % of the normal pictures`;
  const rows = compared().map((cell) => {
    const n = counts(cell), limit = limitOf(cell);
    const box = el("input", { type: "number", step: "any", "aria-label": `threshold of ${method(cell.method).title}` });
    box.value = own.get(placeOf(cell)) ?? "";
    box.placeholder = Number.isFinite(limit.value) ? `above ${written(cell, limit)}` : "all";
    box.addEventListener("change", () => {
      if (box.value === "") own.delete(placeOf(cell));
      else own.set(placeOf(cell), Number(box.value));
      redraw();
    });
    const right = n.found + n.passed, all = right + n.falseAlarms + n.missed;
    return el("tr", {}, el("td", {}, method(cell.method).title), el("td", {}, box),
      el("td", {}, `${n.falseAlarms} of ${n.falseAlarms + n.passed}`), el("td", {}, `${n.missed} of ${n.missed + n.found}`),
      el("td", {}, String(n.found)), el("td", {}, String(n.passed)), el("td", {}, `${right} of ${all}`));
  });
  const head = ["method", "anomalous from", "false alarms", "missed", "defects found", "normal passed", "right"].map((h) => el("th", {}, h));
  $("confusion").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
}

function drawTypes() {
  const types = typesOf(), cells = compared();
  $("types").hidden = types.length < 2;
  const answers = new Map(cells.map((cell) => [cell, said(cell)]));
  const rows = types.map((type) => {
    const members = listed().labels.map((_, i) => i).filter((i) => typeOf(i) === type);
    return el("tr", {}, el("td", {}, type), el("td", {}, String(members.length)), ...cells.map((cell) => {
      const found = members.filter((i) => answers.get(cell)[i]).length;
      return el("td", {}, `${percent(partedBy(cell, type))} (${found} found)`);
    }));
  });
  const note = el("p", { class: "notes" }, "Image AUROC of the pictures of a type against all normal ones, and how many of them are reported at the threshold above.");
  const table = makeTable(["type", "pictures", ...cells.map((c) => method(c.method).title)], rows);
  document.querySelector("#types > div").replaceChildren(note, table);
}

// -------------------------------------------------------------------------------- the gallery
const VIEWS = {
  all: ["all pictures", () => true],
  missed: ["missed", (i, answers) => listed().labels[i] === 1 && answers.some((a) => a[i] === false)],
  alarm: ["false alarms", (i, answers) => listed().labels[i] === 0 && answers.some((a) => a[i] === true)],
  apart: ["methods disagree", (i, answers) => new Set(answers.map((a) => a[i]).filter((v) => v !== null)).size > 1],
  normal: ["normal", (i) => listed().labels[i] === 0],
  anomalous: ["anomalous", (i) => listed().labels[i] === 1],
};
let visible = [];

function choosePictures() {
  const cells = compared().filter((c) => $("by").value === "*" || c.method === $("by").value);
  const answers = cells.map((c) => said(c));
  const [, keeps] = VIEWS[$("kind").value] ?? VIEWS.all;
  const type = $("type").value;
  visible = listed().uids.map((_, i) => i).filter((i) => keeps(i, answers) && (type === "*" || typeOf(i) === type));
}

function thumb(i) {
  const { tiles, columns } = listed().pictures;
  const node = el("span", { class: "thumb" });
  if (tiles[i] < 0) return node;
  const rows = Math.ceil((Math.max(...tiles) + 1) / columns);
  const part = (at, of) => (of > 1 ? (100 * at) / (of - 1) : 0);
  node.style.backgroundImage = "var(--sheet)";
  node.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
  node.style.backgroundPosition = `${part(tiles[i] % columns, columns)}% ${part(Math.floor(tiles[i] / columns), rows)}%`;
  return node;
}

function drawGallery() {
  choosePictures();
  const { uids, labels, left_out } = listed();
  const answers = compared().map((c) => said(c));
  $("gallery").style.setProperty("--sheet", `url("${listed().pictures.sheet}")`);
  $("gallery").replaceChildren(...visible.map((i) => {
    const known = answers.map((a) => a[i]).filter((v) => v !== null);
    const right = known.filter((v) => v === (labels[i] === 1)).length;
    const button = el("button", { type: "button" }, thumb(i), el("span", { class: "of" }, typeOf(i) || "normal"),
      el("small", {}, `${right} of ${known.length} methods right`), el("small", { class: "file" }, uids[i]));
    button.addEventListener("click", () => openSide(visible.indexOf(i)));
    return el("li", {}, button);
  }));
  const more = left_out ? `; ${left_out} further pictures of this category are not on the page` : "";
  const bare = visible.filter((i) => listed().pictures.tiles[i] < 0).length;
  const without = bare ? `; ${bare} without a picture, which was not stored` : "";
  $("shown-said").textContent = `${visible.length} of ${uids.length} pictures${more}${without}.`;
}

function drawCompare() {
  const about = listed();
  $("compare").hidden = !about || !compared().length;
  if ($("compare").hidden) return;
  fill($("kind"), Object.entries(VIEWS).map(([key, [text]]) => [key, text]));
  fill($("by"), [["*", "any method"], ...compared().map((c) => [c.method, method(c.method).title])]);
  fill($("type"), [["*", "all types"], ...typesOf().map((t) => [t, t])]);
  redraw();
}

function redraw() {
  drawConfusion();
  drawTypes();
  drawGallery();
  if ($("side").open) drawSide();
}

function comparedCsv() {
  const cells = compared(), limits = cells.map(limitOf), answers = cells.map((c, k) => said(c, limits[k]));
  const named = cells.map((c) => method(c.method).title);
  const rows = [["dataset", "category", "picture", "anomalous", "type",
    ...named.flatMap((t) => [`${t}: score`, `${t}: threshold`, `${t}: reported`])]];
  for (const i of visible) {
    rows.push([$("dataset").value, $("category").value, listed().uids[i], listed().labels[i], typeOf(i),
      ...cells.flatMap((c, k) => [c.scores[i], limits[k].value, answers[k][i]])]);
  }
  return rows.map((row) => row.map(csvCell).join(",")).join("\n");
}

function saveCsv() {
  const link = el("a", { download: `${$("dataset").value}-${$("category").value}.csv` });
  link.href = URL.createObjectURL(new Blob([comparedCsv()], { type: "text/csv" }));
  link.click();
  URL.revokeObjectURL(link.href);
}

$("allowed").addEventListener("input", redraw);
$("back").addEventListener("click", () => { own.clear(); redraw(); });
$("save-csv").addEventListener("click", saveCsv);
for (const name of ["kind", "by", "type"]) $(name).addEventListener("change", drawGallery);
