const data = JSON.parse(document.getElementById("data").textContent);
const pictures = data.pictures;
const details = new Map(); // name -> what was loaded of a picture

// ------------------------------------------------------------------ what is decided
// The thresholds of the run; a pixel's may be each picture's own.
const given = { image: data.limits.image ?? null, pixel: null };
const chosen = { ...given };
const scored = pictures.filter((p) => p.error === undefined);
const decided = (p, limit) => (limit === null ? "undecided" : p.score >= limit ? "anomalous" : "normal");
const verdict = (p) => (p.error !== undefined ? "error" : decided(p, chosen.image));
const before = (p) => (p.error !== undefined ? "error" : decided(p, given.image));
const limitOf = (p) => chosen.pixel ?? p.pixel ?? null;
// Maps hold single precision, and a threshold is compared as such.
const marks = (p, limit) => limit !== null && p.peak >= Math.fround(limit);
const isMarked = (p) => p.error === undefined && marks(p, limitOf(p));
const wasMarked = (p) => p.error === undefined && marks(p, p.pixel ?? null);
const KINDS = {
  all: ["all pictures", () => true],
  anomalous: ["anomalous", (p) => verdict(p) === "anomalous"],
  normal: ["normal", (p) => verdict(p) === "normal"],
  changed: ["changed by the threshold", (p) => verdict(p) !== before(p)],
  marked: ["with marked pixels", isMarked],
  error: ["could not be read or scored", (p) => p.error !== undefined],
};
const called = (p) => p.title ?? p.name;
const number = (v, digits = 4) => (v === null || v === undefined ? "–" : Number(v).toPrecision(digits));
const percent = (v) => (v === null || v === undefined ? "–" : `${(100 * v).toFixed(1)} %`);

// --------------------------------------------------------------------------- the list
const order = [...pictures].sort((a, b) =>
  (b.score ?? -Infinity) - (a.score ?? -Infinity) || (a.name < b.name ? -1 : 1));
const cards = new Map(order.map((p) => [p, card(p)]));
let visible = order;

function image(p, kind) {
  const found = el("img", { alt: "", loading: "lazy", decoding: "async", class: kind });
  found.src = p[kind];
  return found;
}

function card(p) {
  const button = el("button", { type: "button" });
  if (p.error === undefined) {
    button.append(el("span", { class: "thumb" }, image(p, "photo"), image(p, "heat")));
  }
  button.append(
    el("span", { class: "name", title: called(p) }, called(p)),
    el("span", { class: "verdict" }),
    el("small", {}, p.error ?? `score ${number(p.score)}`),
  );
  button.addEventListener("click", () => open(visible.indexOf(p)));
  return el("li", { class: "card" }, button);
}

function refresh() {
  const words = $("search").value.trim().toLowerCase();
  const [, keeps] = KINDS[$("verdict").value] ?? KINDS.all;
  visible = order.filter((p) => keeps(p) && called(p).toLowerCase().includes(words));
  for (const p of order) {
    const label = cards.get(p).querySelector(".verdict");
    label.className = `verdict ${verdict(p)}${verdict(p) === before(p) ? "" : " changed"}`;
    label.textContent = { error: "not scored", undecided: "no threshold" }[verdict(p)] ?? verdict(p);
  }
  $("grid").replaceChildren(...visible.map((p) => cards.get(p)));
  count();
}

function count() {
  const anomalous = scored.filter((p) => verdict(p) === "anomalous").length;
  const changed = scored.filter((p) => verdict(p) !== before(p)).length;
  const marked = scored.filter(isMarked).length;
  const remarked = scored.filter((p) => isMarked(p) !== wasMarked(p)).length;
  const parts = [`${visible.length} of ${pictures.length} pictures shown`];
  if (chosen.image !== null) parts.push(`${anomalous} anomalous (${changed} changed)`);
  if (scored.some((p) => limitOf(p) !== null)) {
    parts.push(`${marked} with marked pixels (${remarked} changed)`);
  }
  const errors = pictures.length - scored.length;
  if (errors) parts.push(`${errors} could not be read or scored`);
  $("counts").textContent = `${parts.join("; ")}.`;
}

// ------------------------------------------------------------------------- thresholds
const DECIDES = { image: (p, limit) => p.score >= limit, pixel: marks };

// What is written for a threshold: the shortest number that decides as it does of every picture.
function written(kind, limit) {
  if (limit === null) return null;
  const decides = DECIDES[kind];
  return shortest(limit, (near) => scored.every((p) => decides(p, near) === decides(p, limit)));
}

function slider(kind, values) {
  const range = $(`${kind}-slider`), box = $(`${kind}-number`);
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low || Math.abs(high) || 1) / 50;
  range.min = low - margin;
  range.max = high + margin;
  // Pictures may have a limit each: the box then says so, and stays empty.
  const own = kind === "pixel" ? new Set(scored.map((p) => p.pixel ?? null)) : new Set([given[kind]]);
  const [common] = own.size === 1 ? own : [null];
  box.placeholder = own.size > 1 ? "each its own" : common === null ? "none" : written(kind, common);
  const show = () => {
    const value = chosen[kind];
    box.value = written(kind, value) ?? "";
    range.value = value ?? common ?? range.max;
  };
  const take = (text) => {
    const value = Number(text);
    chosen[kind] = text === "" || !Number.isFinite(value) ? given[kind] : value;
    refresh();
    if ($("viewer").open) draw();
  };
  range.addEventListener("input", () => {
    box.value = written(kind, Number(range.value)); // what is decided by is what can be read
    take(box.value);
  });
  box.addEventListener("input", () => { take(box.value); if (box.value) range.value = box.value; });
  box.addEventListener("change", () => { if (box.value === "") show(); });
  range.parentNode.hidden = !values.length;
  show();
  return show;
}

// --------------------------------------------------------------------- a large picture
let place = -1;
let zoom = 1;

window.zsadDetail = (name, detail) => { details.set(name, detail); draw(); };

function open(index) {
  if (index < 0 || index >= visible.length) return;
  place = index;
  zoom = 1;
  const p = visible[place];
  if (p.detail) details.set(p.name, p.detail);
  else if (p.script && !details.has(p.name)) {
    const script = el("script");
    script.src = p.script;
    document.body.append(script);
  }
  if (!$("viewer").open) $("viewer").showModal();
  draw();
}

function draw() {
  const p = visible[place];
  if (!p) return;
  $("viewer-name").textContent = called(p);
  const detail = details.get(p.name);
  const canvas = $("canvas");
  canvas.replaceChildren();
  if (p.error === undefined) {
    fit(p);
    const photo = el("img", { alt: called(p) });
    photo.src = p.photo;
    if (p.link) sharper(photo, p.link);
    canvas.append(photo);
    const heat = el("img", { class: "heat", alt: "" });
    heat.src = p.heat;
    canvas.append(heat);
    if (detail) canvas.append(chosen.pixel === null ? outlines(p, detail) : mask(detail.values));
  }
  $("about").replaceChildren(about(p, detail));
}

// The picture itself in place of the small one, where the browser can read it.
function sharper(photo, link) {
  const whole = new Image();
  whole.onload = () => { photo.src = link; };
  whole.src = link;
}

function fit(p) {
  const [width, height] = p.size;
  const stage = $("stage");
  const factor = Math.min((stage.clientWidth - 4) / width, (stage.clientHeight - 4) / height) * zoom;
  $("canvas").style.width = `${width * factor}px`;
  $("canvas").style.height = `${height * factor}px`;
}

function outlines(p, detail) {
  const [width, height] = p.size;
  const found = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
  const size = Math.max(width, height) / 32;
  detail.regions.forEach((region, i) => {
    const points = region.contour.map((at) => at.join(",")).join(" ");
    for (const layer of ["outline", "outline top"]) found.append(svg("polygon", { points, class: layer }));
    if (detail.regions.length === 1) return;
    const [left, top] = region.box; // the number that it has in the list
    const place = { x: Math.min(left, width - 1.5 * size), y: Math.max(size, top - size / 4) };
    const label = svg("text", { ...place, "font-size": size, class: "region-number" });
    label.append(String(i + 1));
    found.append(label);
  });
  return found;
}

// The mask at the chosen threshold, of the map in 256 steps.
function mask(values) {
  const [width, height] = values.size;
  const found = el("canvas", { width, height });
  const pen = found.getContext("2d");
  const pixels = pen.createImageData(width, height);
  const steps = Uint8Array.from(atob(values.steps), (c) => c.charCodeAt(0));
  steps.forEach((step, i) => {
    const value = values.low + ((values.high - values.low) * step) / 255;
    if (value >= Math.fround(chosen.pixel)) pixels.data.set([255, 255, 255, 255], 4 * i);
  });
  pen.putImageData(pixels, 0, 0);
  return found;
}

// A value and the threshold it is compared with, in so many digits that both tell the outcome.
function apart(value, limit) {
  let digits = 4;
  const told = () => Number(number(value, digits)) >= Number(number(limit, digits));
  while (limit !== null && digits < 17 && told() !== value >= limit) digits += 1;
  return [number(value, digits), number(limit, digits)];
}

function about(p, detail) {
  const list = el("dl");
  const say = (term, ...children) => list.append(el("dt", {}, term), el("dd", {}, ...children));
  if (p.error !== undefined) {
    say("Could not be read or scored", p.error);
    return list;
  }
  const words = { undecided: "no threshold" }[verdict(p)] ?? verdict(p);
  say("Verdict", el("span", { class: `verdict ${verdict(p)}` }, words));
  const [score, from] = apart(p.score, chosen.image);
  say("Score", chosen.image === null ? score : `${score}, anomalous from ${from}`);
  if (p.note) say("Note", p.note);
  if (limitOf(p) !== null) {
    const [peak, from] = apart(p.peak, Math.fround(limitOf(p)));
    const limit = `pixels are marked from ${from}, the highest is ${peak}`;
    say("Marked", chosen.pixel === null ? `${percent(p.share)} of the picture; ${limit}` : limit);
  }
  if (detail && chosen.pixel === null) {
    const items = detail.regions.map((r) => el("li", {},
      `peak ${number(r.peak)}, mean ${number(r.score)}, ${r.area} pixels, at x ${r.box[0]}, y ${r.box[1]}`));
    if (items.length) say("Regions", el("ol", {}, ...items), detail.omitted ? `and ${detail.omitted} more` : "");
  }
  if (detail?.reasons.length) {
    say("Reasons", el("ul", {}, ...detail.reasons.map((r) => el("li", {}, r.note ? `${r.text} (${r.note})` : r.text))));
  }
  if (p.link) say("File", el("a", { href: p.link }, p.path));
  else say("File", p.path);
  return list;
}

function csv() {
  const rows = [["path", "image_score", "verdict", "image_threshold", "highest_value", "pixel_threshold", "marked", "error"]];
  for (const p of visible) {
    rows.push([p.path, p.score, verdict(p), chosen.image, p.peak, limitOf(p), p.error === undefined ? isMarked(p) : "", p.error]);
  }
  return rows.map((row) => row.map(csvCell).join(",")).join("\n");
}

// ------------------------------------------------------------------------------ begin
const made = data.made_by;
$("lead").textContent = [
  `${pictures.length} pictures`,
  made.title ?? made.method ?? "",
  made.class_name ? `class name "${made.class_name}"` : "",
  made.backbone?.name ?? made.backbone ?? "",
  { uncalibrated: "thresholds are a rule of thumb, not calibrated",
    calibrated: `thresholds from ${data.limits.normal_pictures} normal pictures`,
    given: "thresholds set by hand" }[data.limits.rule] ?? "no thresholds",
].filter(Boolean).join(" · ");
$("mark").textContent = made.mark ?? "";
$("mark").hidden = !made.mark;
$("made").textContent = JSON.stringify(made, null, 1);
for (const [value, [text]] of Object.entries(KINDS)) $("verdict").append(el("option", { value }, text));
const show = [
  slider("image", scored.map((p) => p.score)),
  slider("pixel", scored.map((p) => p.peak)),
];
$("verdict").addEventListener("change", refresh);
$("search").addEventListener("input", refresh);
$("choose").addEventListener("submit", (event) => event.preventDefault());
$("opacity").addEventListener("input", () => document.documentElement.style.setProperty("--heat", $("opacity").value));
$("reset").addEventListener("click", () => { Object.assign(chosen, given); show.forEach((f) => f()); refresh(); });
$("copy").addEventListener("click", async () => {
  const text = csv();
  try {
    await navigator.clipboard.writeText(text);
    $("copy").textContent = "Copied";
  } catch {
    const box = el("textarea", {}, text); // where a page from disk may not write the clipboard
    document.body.append(box);
    box.select();
    $("copy").textContent = document.execCommand("copy") ? "Copied" : "Not copied";
    box.remove();
  }
  setTimeout(() => { $("copy").textContent = "Copy as CSV"; }, 1500);
});
const zoomed = (factor) => { zoom = Math.min(16, Math.max(1, zoom * factor)); if (visible[place]?.size) fit(visible[place]); };
$("larger").addEventListener("click", () => zoomed(1.5));
$("smaller").addEventListener("click", () => zoomed(1 / 1.5));
$("previous").addEventListener("click", () => open(place - 1));
$("next").addEventListener("click", () => open(place + 1));
$("close").addEventListener("click", () => $("viewer").close());
$("viewer").addEventListener("close", () => cards.get(visible[place])?.querySelector("button").focus());
$("viewer").addEventListener("keydown", (event) => {
  if (zoom > 1 && event.key.startsWith("Arrow")) return; // the stage scrolls
  const does = {
    ArrowLeft: () => open(place - 1), ArrowRight: () => open(place + 1),
    "+": () => zoomed(1.5), "-": () => zoomed(1 / 1.5),
  }[event.key];
  if (does) { event.preventDefault(); does(); }
});
let held = null; // where a drag began: pan
$("stage").addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; });
$("stage").addEventListener("pointermove", (event) => {
  if (!held || event.pointerType === "touch") return; // touch scrolls by itself
  $("stage").scrollBy(held[0] - event.clientX, held[1] - event.clientY);
  held = [event.clientX, event.clientY];
});
for (const name of ["pointerup", "pointerleave"]) $("stage").addEventListener(name, () => { held = null; });
$("stage").addEventListener("dragstart", (event) => event.preventDefault());
window.addEventListener("resize", () => { if ($("viewer").open && visible[place]?.size) fit(visible[place]); });
window.zsadPage = { chosen, verdict, isMarked, csv, pictures, refresh }; // for whoever scripts the page
refresh();
