// One picture by every method side by side, on one scale.
const RAMP = [[13, 8, 135], [84, 2, 163], [156, 23, 158], [204, 71, 120], [240, 127, 79], [240, 249, 33]];
const BEGINS = 0.16; // grey from which colours are seen: one pixel in three
let place = -1;
let zoom = 1;
let drawn = 0; // the newest call of drawSide: an older one that waits for a sheet stops
const sheets = new Map(); // address -> image that is being read

function sheetOf(address) {
  if (!sheets.has(address)) {
    const image = new Image();
    image.src = address;
    sheets.set(address, image.decode().then(() => image));
  }
  return sheets.get(address);
}

function coloured(grey, pixels, at) {
  const t = Math.min(1, Math.max(0, (grey / 255 - BEGINS) / (1 - BEGINS))) * (RAMP.length - 1);
  const low = Math.min(RAMP.length - 2, Math.floor(t)), part = t - low;
  for (let k = 0; k < 3; k += 1) pixels[at + k] = RAMP[low][k] * (1 - part) + RAMP[low + 1][k] * part;
  pixels[at + 3] = 255 * Math.min(0.75, t / 2);
}

// The map of a picture as a small canvas, which the browser enlarges smoothly.
async function mapOf(cell, i) {
  const tile = cell.maps?.tiles[i] ?? -1;
  if (tile < 0) return null;
  const sheet = await sheetOf(cell.maps.sheet);
  const side = sheet.width / cell.maps.columns;
  const canvas = el("canvas", { width: side, height: side, class: "map" });
  const pen = canvas.getContext("2d");
  pen.drawImage(sheet, (tile % cell.maps.columns) * side, Math.floor(tile / cell.maps.columns) * side, side, side, 0, 0, side, side);
  const pixels = pen.getImageData(0, 0, side, side);
  for (let at = 0; at < pixels.data.length; at += 4) coloured(pixels.data[at], pixels.data, at);
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

function caption(cell, i) {
  const score = cell.scores[i];
  if (score === null) return el("figcaption", {}, el("b", {}, method(cell.method).title), " not scored");
  const reported = reports(score, limitOf(cell));
  const right = reported === (listed().labels[i] === 1);
  const verdict = `${right ? "✓" : "✗"} ${reported ? "anomalous" : "normal"}`;
  return el("figcaption", {}, el("b", {}, method(cell.method).title), ` ${Number(score.toPrecision(4))}`,
    el("span", { class: `verdict ${right ? "right" : "wrong"}` }, verdict));
}

async function drawSide() {
  const i = visible[place];
  if (i === undefined) return;
  drawn += 1;
  const turn = drawn;
  const type = typeOf(i);
  $("side-name").textContent = `${listed().uids[i]}: ${type ? `anomalous${type === "anomalous" ? "" : `, ${type}`}` : "normal"}`;
  $("side-body").style.setProperty("--sheet", `url("${listed().pictures.sheet}")`);
  $("side-body").style.setProperty("--zoom", zoom);
  const plain = el("figure", {}, thumb(i), el("figcaption", {}, el("b", {}, "picture")));
  const others = await Promise.all(compared().map(async (cell) => {
    const map = await mapOf(cell, i);
    const stack = el("div", { class: "stack" }, thumb(i), ...(map ? [map] : []));
    return el("figure", {}, stack, caption(cell, i));
  }));
  if (turn === drawn) $("side-body").replaceChildren(plain, ...others);
}

function openSide(index) {
  if (index < 0 || index >= visible.length) return;
  place = index;
  if (!$("side").open) $("side").showModal();
  drawSide();
}

const zoomed = (factor) => { zoom = Math.min(6, Math.max(0.5, zoom * factor)); drawSide(); };
$("side-back").addEventListener("click", () => openSide(place - 1));
$("side-on").addEventListener("click", () => openSide(place + 1));
$("side-less").addEventListener("click", () => zoomed(1 / 1.5));
$("side-more").addEventListener("click", () => zoomed(1.5));
$("side-close").addEventListener("click", () => $("side").close());
$("side").addEventListener("close", () => document.querySelectorAll("#gallery button")[place]?.focus());
$("side").addEventListener("keydown", (event) => {
  const does = {
    ArrowLeft: () => openSide(place - 1), ArrowRight: () => openSide(place + 1),
    "+": () => zoomed(1.5), "-": () => zoomed(1 / 1.5),
  }[event.key];
  if (does) { event.preventDefault(); does(); }
});
window.zsadReport = { counts, compared, limitOf, partedBy, comparedCsv, costs, ticks, levels }; // for whoever scripts the page
