// Small helpers.  Texts of data only ever become text nodes or attribute values.
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = [
  "#2f6fde", "#e07a1f", "#2a9d5c", "#b5479c", "#c0392b", "#7a6ff0",
  "#8a6d3b", "#159aa8", "#d4a017", "#5f7d8c", "#e26fa5", "#4b8f29",
];
const $ = (id) => document.getElementById(id);

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function svg(name, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
}

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
const colour = (label) => COLOURS[shown().indexOf(method(label)) % COLOURS.length];
const shown = () => board().methods.filter((m) => String(m.ablation) === $("columns").value);
const cellsOf = (category) => board().cells.filter((c) =>
  c.dataset === $("dataset").value && String(c.seed) === $("seed").value
  && shown().includes(method(c.method)) && (category === undefined || c.category === category));
const legend = (labels) => el("div", { class: "legend" }, ...labels.map((l) =>
  el("span", {}, el("i", { style: `background:${colour(l)}` }), method(l).title)));
