// Sortable tables: those of the page, the ranking of methods, and measured beside published.
const numberIn = (text) => {
  const found = text.replace("−", "-").match(/[-+]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : null;
};

// Headings become buttons.  Mean rows and rows without a value stay at the end.
function sortable(table) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const texts = (column, rows) => rows.map((r) => r.cells[column].textContent);
  heads.forEach((head, column) => {
    const button = el("button", { type: "button" }, head.textContent);
    button.addEventListener("click", () => {
      const body = table.tBodies[0];
      const rows = [...body.rows].filter((r) => !r.classList.contains("mean"));
      const means = [...body.rows].filter((r) => r.classList.contains("mean"));
      const words = texts(column, rows).some((t) => t !== NOT_COMPUTED && /^[^\d(–+-]/.test(t.trim()));
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : !words;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const text = row.cells[column].textContent;
        return words ? text.toLowerCase() : numberIn(text);
      };
      rows.sort((a, b) => {
        const [p, q] = [value(a), value(b)];
        if (p === null || q === null) return (p === null) - (q === null);
        const order = words ? p.localeCompare(q) : p - q;
        return down ? -order : order;
      });
      body.replaceChildren(...rows, ...means);
    });
    head.replaceChildren(button);
  });
  return table;
}

function makeTable(heads, rows, attributes = {}) {
  const head = el("tr", {}, ...heads.map((h) => el("th", {}, h)));
  return sortable(el("table", attributes, el("thead", {}, head), el("tbody", {}, ...rows)));
}

// Methods as rows, figures as columns, for one dataset or one mean at a time.
function ranking(b, methods, title) {
  const means = b.means.filter((m) => methods.some((x) => x.label === m.method));
  const names = Object.entries(data.metrics).filter(([key]) => means.some((m) => m.metric === key));
  const ordered = [...means.filter((m) => !m.mean), ...means.filter((m) => m.mean)];
  const over = new Map(ordered.map((m) => [m.row, m.mean ? `${m.title} datasets` : m.title]));
  const select = el("select", { "aria-label": "dataset" });
  const label = el("label", {}, "Dataset ", select);
  const place = el("div", { class: "wide" });
  const show = () => {
    const found = means.filter((m) => m.row === select.value);
    const cell = (m, key) => {
      const figure = found.find((f) => f.method === m.label && f.metric === key);
      const text = figure ? figure.text : m.without.includes(key) ? NOT_COMPUTED : "–";
      const count = figure && figure.count !== figure.of ? ` [${figure.count} of ${figure.of}]` : "";
      const place = figure ? figure.place : 0;
      return el("td", {}, place === 1 ? el("b", {}, text) : place === 2 ? el("u", {}, text) : text, count);
    };
    const rows = methods.filter((m) => found.some((f) => f.method === m.label)).map((m) =>
      el("tr", {}, el("td", {}, m.title), ...names.map(([key]) => cell(m, key))));
    const table = makeTable(["method", ...names.map(([, text]) => text)], rows);
    place.replaceChildren(table);
    table.tHead.rows[0].cells[1]?.firstChild.click();
  };
  select.addEventListener("change", show);
  const part = el("div", {}, title ? el("h4", {}, title) : "", label, place);
  fill(select, [...over], [...over.keys()].pop());
  show();
  return part;
}

function drawRanking() {
  const several = data.boards.length > 1;
  $("ranking").replaceChildren(...data.boards.flatMap((b) => [false, true].map((ablation) => {
    const methods = b.methods.filter((m) => m.ablation === ablation);
    const words = [several ? `Backbone ${b.backbone}` : "", ablation ? "Rows of ablations" : ""];
    return methods.length ? ranking(b, methods, words.filter(Boolean).join(": ")) : "";
  })));
}

// One row per method, for one figure and one dataset (or all) at a time.
function drawAgainst() {
  if (!$("against")) return;
  const rows = data.boards.flatMap((b) => b.published.map((p) => ({ ...p, backbone: b.backbone })));
  const several = new Set(rows.map((r) => r.backbone)).size > 1;
  const [select, on] = [el("select"), el("select")];
  const labels = el("div", { class: "choices" }, el("label", {}, "Figure ", select), el("label", {}, "Dataset ", on));
  const place = el("div", { class: "wide" });
  const says = { yes: "yes", partly: "in part", no: "no" };
  const show = () => {
    const shown = rows.filter((r) => r.metric === select.value && (r.row === on.value || on.value === "*"));
    const heads = ["dataset", "method", ...(several ? ["backbone"] : []), "measured", "published", "Δ", "comparable", "printed in; what differs"];
    place.replaceChildren(makeTable(heads, shown.map((r) => el("tr", {},
      el("td", {}, r.row), el("td", { class: "who" }, r.title), ...(several ? [el("td", {}, r.backbone)] : []),
      el("td", {}, r.value.toFixed(1)), el("td", {}, r.published.toFixed(1)),
      el("td", {}, r.difference === null ? "–" : `${r.difference > 0 ? "+" : ""}${r.difference.toFixed(1)}`),
      el("td", { class: `agrees ${r.protocol}` }, says[r.protocol]),
      el("td", { class: "why" }, r.source, r.differs ? `; ${r.differs}` : ""))), { class: "against" }));
  };
  const choose = () => {
    const names = [...new Set(rows.filter((r) => r.metric === select.value).map((r) => r.row))];
    fill(on, [...names.map((name) => [name, name]), ...(names.length > 1 ? [["*", "all"]] : [])]);
    show();
  };
  select.addEventListener("change", choose);
  on.addEventListener("change", show);
  $("against").replaceChildren(labels, place);
  fill(select, Object.entries(data.metrics).filter(([key]) => rows.some((r) => r.metric === key)));
  choose();
}
