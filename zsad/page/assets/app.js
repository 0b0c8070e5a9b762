// The form above the pictures: what is dropped, pasted or chosen is sent to the server of this page.
// Texts of others only ever become text nodes.
const $ = (id) => document.getElementById(id);
const state = JSON.parse($("state").textContent);
const files = { pictures: [], good: [] };
const WORDS = "zsad-app"; // what was typed, for the page after this one
const WARNINGS = "zsad-warnings"; // what was said of those pictures
let offered = null;

const typed = () => ({ class_name: $("class-name").value, method: $("method").value, backbone: $("backbone").value });
const one = (list) => (list.length === 1 ? list[0].name : `${list.length} pictures`);

function take(kind, list) {
  const pictures = [...list].filter((file) => file.size > 0);
  if (!pictures.length) return;
  files[kind] = pictures;
  const bytes = pictures.reduce((sum, file) => sum + file.size, 0);
  const empty = list.length - pictures.length;
  const left = empty ? `; ${empty} without content left out` : "";
  $(`${kind}-said`).textContent = `${one(pictures)}, ${(bytes / 1e6).toFixed(1)} MB${left}`;
  if (kind === "good") $("good-part").open = true;
}

function complain(text) {
  $("wrong").textContent = text;
  $("wrong").hidden = !text;
}

function choose(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text, off]) => {
    const option = new Option(text, value, false, value === chosen);
    option.disabled = off;
    return option;
  }));
}

function about() {
  const method = offered.methods.find((m) => m.name === $("method").value);
  if (!method) return;
  const parts = [method.summary];
  if (method.compares) parts.push("It compares the pictures with each other: give several.");
  $("about-method").textContent = parts.join(" ");
  const references = document.querySelector("[name=role][value=references]");
  references.disabled = !method.references;
  if (references.disabled) document.querySelector("[name=role][value=calibrate]").checked = true;
}

function list() {
  const backbone = $("backbone").value;
  const chosen = $("method").value;
  choose($("method"), offered.methods.map((m) => {
    const missing = m.missing[backbone];
    return [m.name, missing ? `${m.title} (no trained state)` : m.title, Boolean(missing)];
  }), chosen);
  about();
}

async function begin() {
  const answer = await fetch("/methods");
  offered = await answer.json();
  const kept = JSON.parse(sessionStorage.getItem(WORDS) ?? "{}");
  const now = { ...offered, ...kept, ...(state.run ? state : {}) };
  choose($("backbone"), offered.backbones.map((name) => [name, name, false]), now.backbone);
  choose($("method"), offered.methods.map((m) => [m.name, m.title, false]), now.method);
  list();
  $("class-name").value = now.class_name ?? "";
  $("export").hidden = !state.run;
  const held = [state.calibrated ? "thresholds" : "", state.references ? `${state.references} references` : ""].filter(Boolean);
  $("like-part").hidden = !held.length;
  $("like-said").textContent = `go on with the ${held.join(" and ")} of the pictures below`;
}

function form() {
  const body = new FormData();
  for (const [name, value] of Object.entries(typed())) body.append(name, value);
  for (const file of files.pictures) body.append("pictures", file, file.name || "pasted.png");
  for (const file of files.good) body.append("good", file, file.name || "pasted.png");
  body.append("role", document.querySelector("[name=role]:checked").value);
  if (!$("like-part").hidden && $("like").checked) body.append("like", state.run);
  body.append("page", "true");
  return body;
}

async function told(answer) {
  try {
    return (await answer.json()).error ?? `the app answered ${answer.status}`;
  } catch {
    return `the app answered ${answer.status}`;
  }
}

async function score(event) {
  event.preventDefault();
  complain("");
  if (!files.pictures.length) return complain("There are no pictures yet: choose, drop or paste some.");
  const many = files.pictures.length + files.good.length;
  const bytes = [...files.pictures, ...files.good].reduce((sum, file) => sum + file.size, 0);
  if (many > offered.most_pictures) return complain(`At most ${offered.most_pictures} pictures at a time; these are ${many}.`);
  if (bytes > 0.99 * offered.most_bytes) return complain(`At most ${(offered.most_bytes / 2 ** 20).toFixed(0)} MiB at a time; these are ${(bytes / 2 ** 20).toFixed(0)}.`);
  $("score").disabled = true;
  $("said").textContent = `Scoring ${one(files.pictures)} ...`;
  try {
    const answer = await fetch("/predict", { method: "POST", body: form() });
    if (answer.ok) {
      const found = await answer.json();
      sessionStorage.setItem(WORDS, JSON.stringify(typed()));
      sessionStorage.setItem(WARNINGS, JSON.stringify(found.warnings ?? []));
      location.assign(`${found.page}#results`);
      return;
    }
    complain(await told(answer));
  } catch {
    complain("The app does not answer; is it still running?");
  } finally {
    $("score").disabled = false;
    $("said").textContent = "";
  }
}

async function takeAway() {
  complain("");
  $("export").disabled = true;
  $("said").textContent = "Writing the method, and comparing it with itself ...";
  const body = new FormData();
  body.append("run", state.run);
  try {
    const answer = await fetch("/export", { method: "POST", body });
    if (!answer.ok) return complain(await told(answer));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = `${state.method}.zsad`;
    link.click();
    URL.revokeObjectURL(link.href);
    $("said").textContent = `${link.download} is written: zsad run ${link.download} PATH...`;
  } catch {
    complain("The app does not answer; is it still running?");
  } finally {
    $("export").disabled = false;
  }
}

if (state.run) {
  const warnings = JSON.parse(sessionStorage.getItem(WARNINGS) ?? "[]");
  sessionStorage.removeItem(WARNINGS);
  if (warnings.length) complain(warnings.join("\n"));
}
document.title = state.run ? "Pictures by anomaly score" : "Score pictures";
document.body.classList.toggle("nothing-yet", !state.run);
for (const kind of ["pictures", "good"]) $(kind).addEventListener("change", () => take(kind, $(kind).files));
$("backbone").addEventListener("change", list);
$("method").addEventListener("change", about);
$("ask").addEventListener("submit", score);
$("export").addEventListener("click", takeAway);
document.addEventListener("paste", (event) => take("pictures", event.clipboardData?.files ?? []));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const kind = event.target instanceof Element && event.target.closest("#good-part") ? "good" : "pictures";
    for (const other of ["drop", "good-drop"]) {
      $(other).classList.toggle("over", name === "dragover" && (other === "good-drop") === (kind === "good"));
    }
    if (name === "drop") take(kind, event.dataTransfer.files);
  });
}
begin().catch(() => complain("The app does not answer; is it still running?"));
