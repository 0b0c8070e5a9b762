// What is shown, and in which colours.
const data = JSON.parse(document.getElementById("data").textContent);
// Okabe and Ito: told apart by deuteranopes, too.  Beyond eight methods lines are dashed.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4020e0", "#006000"];
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];

const nothing = (text) => el("p", { class: "nothing" }, text);
const NOT_COMPUTED = "not computed"; // as the tables say it
const percent = (v) => (v === null || v === undefined ? "–" : (100 * v).toFixed(1));

// Fills a select with [value, text] pairs; keeps the choice where it can, hides what has no choice.
function fill(select, items, chosen = select.value) {
  select.replaceChildren(...items.map(([value, text]) => el("option", { value }, text)));
  if (items.some(([value]) => String(value) === chosen)) select.value = chosen;
  select.parentNode.hidden = items.length < 2;
}

// What is chosen.
const board = () => data.boards[Number($("board").value)];
const dataset = () => board().datasets.find((d) => d.name === $("dataset").value);
const method = (label) => board().methods.find((m) => m.label === label);
const numberOf = (label) => shown().indexOf(method(label));
const colour = (label) => COLOURS[numberOf(label) % COLOURS.length];
const dash = (label) => DASHES[Math.floor(numberOf(label) / COLOURS.length) % DASHES.length];
const shown = () => board().methods.filter((m) => String(m.ablation) === $("columns").value);
const cellsOf = (category) => board().cells.filter((c) =>
  c.dataset === $("dataset").value && String(c.seed) === $("seed").value
  && shown().includes(method(c.method)) && (category === undefined || c.category === category));
const legend = (labels) => el("div", { class: "legend" }, ...labels.map((l) =>
  el("span", {}, el("i", { style: `background:${colour(l)}` }), method(l).title)));
