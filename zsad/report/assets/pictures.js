// Example pictures: the heat map lies over the picture, the outline of the defect over both.
const KINDS = {
  detected: ["Best find", "anomalous image with the highest score"],
  missed: ["Worst miss", "anomalous image with the lowest score"],
  "false alarm": ["Worst false alarm", "normal image with the highest score"],
  clean: ["Clearest normal", "normal image with the lowest score"],
};
const SOURCES = {
  template: "a fixed template", llm: "written by a language model", bank: "from the prompt bank",
  vqa: "answered by a vision-language model", learned: "learned prompt", mask: "from a mask",
  detector: "named by the detector",
};

function layers(e) {
  const [width, height] = e.side;
  const lines = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  if (e.outline) lines.append(svg("path", { class: "under", d: e.outline }), svg("path", { class: "truth", d: e.outline }));
  const picture = (extra = {}) => el("img", { src: data.pictures[e.picture], alt: `picture ${e.uid}`, ...extra });
  const heat = el("img", { class: "heat", src: e.heat, alt: `heat map of ${e.uid}` });
  return { lines, pair: el("div", { class: "pair" }, el("div", {}, picture()), el("div", { class: "stack" }, picture({ alt: "" }), heat, lines)) };
}

function reasons(e, lines) {
  if (!e.explanations.length) return el("p", { class: "nothing" }, "This method gives no reasons.");
  const [width, height] = e.side;
  const items = e.explanations.slice(0, 5).map((r) => {
    const item = el("li", { class: r.label, title: [SOURCES[r.source] || r.source, r.note].filter(Boolean).join("; ") },
      r.text, el("span", {}, ` (${r.similarity.toFixed(2)})`));
    if (r.region) {
      const [x0, y0, x1, y1] = r.region;
      const box = svg("rect", { class: "region", x: x0 * width, y: y0 * height, width: (x1 - x0) * width, height: (y1 - y0) * height });
      const show = () => lines.append(box);
      const hide = () => box.remove();
      item.setAttribute("tabindex", 0);
      item.classList.add("placed");
      for (const event of ["mouseenter", "focus"]) item.addEventListener(event, show);
      for (const event of ["mouseleave", "blur"]) item.addEventListener(event, hide);
    }
    return item;
  });
  const notes = [...new Set(e.explanations.map((r) => r.note).filter(Boolean))];
  const list = el("ul", { class: "reasons" }, ...items);
  return notes.length === 1 ? el("div", {}, list, el("small", {}, notes[0])) : list;
}

function card(e) {
  const [title, says] = KINDS[e.kind] || [e.kind, ""];
  const { lines, pair } = layers(e);
  const rivals = e.label ? "normal" : "anomalous";
  const [above, of] = e.above;
  const defect = e.label && e.defect && e.defect !== "anomalous" ? `, defect: ${e.defect}` : "";
  return el("div", { class: "card" },
    el("b", {}, title), el("small", {}, says), pair,
    el("div", {}, `score ${e.score.toFixed(3)}${of ? `, above ${above} of ${of} ${rivals} images` : ""}${defect}`),
    reasons(e, lines), el("small", { class: "file" }, e.uid));
}

function drawExamples() {
  const blocks = cellsOf($("category").value).filter((c) => c.examples.length).map((cell) =>
    el("div", { class: "method" }, el("h3", {}, method(cell.method).title),
      el("div", { class: "cards" }, ...cell.examples.map(card))));
  const few = data.per_cell === null || data.per_cell === undefined ? [] : [el("p", { class: "notes" },
    `There are many results: ${data.per_cell} of 4 pictures per method and category are on this page (zsad report --pictures N).`)];
  $("examples").replaceChildren(...few, ...(blocks.length ? blocks : [nothing("No pictures are stored for this category.")]));
}
