"""Tables: known means, ranks, escaping, and nothing mixed that must not be mixed."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad import tables
from zsad.config import digest
from zsad.config.method_config import ALL_SHOTS
from zsad.results.aggregate import Figure, of_category, over_categories, over_datasets, ranks
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.tables.formats import FORMATS
from zsad.tables.model import Line, Page, Span, Table


def record(
    method: str = "clip",
    dataset: str = "mine",
    category: str = "a",
    seed: int = 0,
    auroc: float | None = 0.5,
    metrics: dict[str, float | None] | None = None,
    **info: Any,
) -> CellRecord:
    values = metrics if metrics is not None else {"image_auroc": auroc, "image_ap": 0.25}
    return CellRecord(
        method=method,
        dataset=dataset,
        category=category,
        seed=seed,
        fingerprint=digest([method, dataset, category, seed, sorted(info.items())]),
        metrics=values,
        undefined={k: "one class only" for k, v in values.items() if v is None},
        n_normal=3,
        n_anomalous=4,
        seconds={},
        info={
            "backbone": "vit-l-14-336",
            "weights_sha256": "ab" * 32,
            "title": method.upper(),
            "group": "baselines",
            "image_size": 518,
            "metrics": {"fpr_limit": 0.3},
            **info,
        },
    )


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path)


def md_rows(text: str) -> dict[str, list[str]]:
    """First cell -> other cells, of all tables of a Markdown text (the last one wins)."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    split = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {cells[0]: cells[1:] for cells in split}


# ------------------------------------------------------------------------------ figures
def test_the_deviation_is_that_of_the_seeds_means() -> None:
    cells = {
        (c, s): record(category=c, seed=s, auroc=v)
        for (c, s), v in {("a", 0): 0.8, ("b", 0): 0.6, ("a", 1): 0.9, ("b", 1): 0.7}.items()
    }
    figure = over_categories(cells, "image_auroc", ["a", "b"])
    # Means of the seeds: 0.7 and 0.8; their sample deviation is 0.1 / sqrt(2).
    assert figure.value == pytest.approx(0.75)
    assert figure.deviation == pytest.approx(0.1 / 2**0.5)
    assert (figure.count, figure.of) == (2, 2)
    assert figure.text == "75.0 ± 7.1"
    assert of_category(cells, "image_auroc", "b").text == "65.0 ± 7.1"


def test_a_category_undefined_for_one_seed_is_left_out_for_all() -> None:
    cells = {
        (c, s): record(category=c, seed=s, auroc=v)
        for (c, s), v in {("a", 0): 0.8, ("b", 0): 0.1, ("a", 1): 0.8, ("b", 1): None}.items()
    }
    figure = over_categories(cells, "image_auroc", ["a", "b"])
    assert figure == Figure(pytest.approx(0.8), None, 1, 2)  # equal seeds: no deviation


def test_undefined_is_missing_and_not_zero() -> None:
    figure = over_categories({("a", 0): record(auroc=None)}, "image_auroc", ["a", "b"])
    assert (figure.value, figure.text, figure.count, figure.of) == (None, "–", 0, 2)
    both = over_datasets([figure, Figure(0.4, None, 3, 3)])
    assert (both.value, both.count, both.of) == (0.4, 1, 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9, 0.8, 0.7], [1, 2, 0]),
        ([0.9, 0.9, 0.7], [1, 1, 2]),
        ([0.9, 0.9004, 0.7], [1, 1, 2]),  # equal as printed
        ([0.9, None, 0.7], [1, 0, 2]),
        ([0.9, None, None], [0, 0, 0]),
        ([0.5, 0.5], [1, 1]),
        ([], []),
    ],
)
def test_ranks_and_ties(values: list[float | None], expected: list[int]) -> None:
    figures = [Figure(v, None, 5, 5) for v in values]
    assert ranks(figures, [True] * len(values)) == expected


def test_only_comparable_columns_with_the_full_count_compete() -> None:
    figures = [Figure(0.9, None, 4, 5), Figure(0.8, None, 5, 5), Figure(0.7, None, 5, 5)]
    assert ranks(figures, [True] * 3) == [0, 1, 2]
    figures = [Figure(v, None, 5, 5) for v in (0.9, 0.8, 0.7)]
    assert ranks(figures, [False, True, True]) == [0, 1, 2]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_the_best_printed_value_is_always_marked(values: list[float]) -> None:
    figures = [Figure(v, None, 1, 1) for v in values]
    places = ranks(figures, [True] * len(values))
    best = max(f.shown for f in figures if f.shown is not None)
    assert [p == 1 for p in places] == [f.shown == best for f in figures]


# ------------------------------------------------------------------------------- pages
def test_overview_has_the_papers_form(store: ResultStore) -> None:
    for method, a, b in (("clip", 0.742, 0.5), ("winclip", 0.918, 0.7)):
        store.put(record(method, "one", "a", auroc=a))
        store.put(record(method, "one", "b", auroc=a))
        store.put(record(method, "two", "c", auroc=b))
    rows = md_rows(tables.render(store.root))
    assert rows["dataset (categories)"] == ["CLIP", "WINCLIP"]
    assert rows["one (2)"] == ["(<u>74.2</u>, **25.0**)", "(**91.8**, **25.0**)"]
    assert rows["two (1)"] == ["(<u>50.0</u>, **25.0**)", "(**70.0**, **25.0**)"]
    # The mean counts every dataset once: (0.742 + 0.5) / 2.
    assert rows["mean of 2"] == ["(<u>62.1</u>, **25.0**)", "(**80.9**, **25.0**)"]


def test_a_mean_that_lacks_categories_says_so_and_does_not_compete(store: ResultStore) -> None:
    for category, auroc in (("a", 0.9), ("b", None)):
        store.put(record("clip", category=category, auroc=auroc, metrics={"image_auroc": auroc}))
    for method in ("winclip", "alfa"):
        for category in "ab":
            store.put(record(method, category=category, metrics={"image_auroc": 0.6}))
    rows = md_rows(tables.render(store.root))
    assert rows["mine (2)"][1] == "(90.0, not computed) [1, 0 of 2]"
    assert rows["mine (2)"][2].startswith("(**60.0**")


def test_dataset_page_lists_categories_and_their_mean(store: ResultStore) -> None:
    store.put(record(category="a", auroc=0.8))
    store.put(record(category="b", auroc=None))
    page = next(p for p in tables.pages(store.root) if p.name.endswith("/mine"))
    rows = md_rows(FORMATS["md"](page))
    assert rows["a"] == ["(80.0, 25.0)"]
    assert rows["b"] == ["(–, 25.0)"]
    assert rows["mean of 2"] == ["(80.0, 25.0) [1, 2 of 2]"]


def test_backbones_are_never_mixed(store: ResultStore) -> None:
    store.put(record(auroc=0.9))
    banner = "bundled demonstration backbone; not comparable with published results"
    store.put(record(auroc=0.3, backbone="zsad-tiny", weights_sha256="cd" * 32, banner=banner))
    store.put(record(auroc=0.2, weights_sha256="ef" * 32))
    found = {p.name: FORMATS["md"](p) for p in tables.pages(store.root) if "overview" in p.name}
    assert sorted(found) == [
        "vit-l-14-336-abababab/overview",
        "vit-l-14-336-efefefef/overview",
        "zsad-tiny/overview",
    ]
    assert "Bundled demonstration backbone; not comparable" in found["zsad-tiny/overview"]
    assert "Bundled" not in found["vit-l-14-336-abababab/overview"]
    for name, value in (("abababab", "90.0"), ("efefefef", "20.0")):
        assert md_rows(found[f"vit-l-14-336-{name}/overview"])["mine (1)"] == [f"({value}, 25.0)"]


def test_weights_that_are_not_known_mark_every_format(store: ResultStore) -> None:
    """A record without a grade, too: the hash says whether its weights are published ones."""
    published = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    store.put(record(weights_sha256=published, weights_source="hub:openai"))
    store.put(record(weights_sha256="cd" * 32, weights_source="file:mine_1.pt"))
    for page in tables.pages(store.root, ci=True):
        for name, render in FORMATS.items():
            marked = "nknown weights: mine" in render(page)
            assert marked == page.name.startswith("vit-l-14-336-cdcdcdcd/"), (page.name, name)


def test_a_cell_computed_again_alike_is_counted_and_not_mixed(store: ResultStore) -> None:
    """The same configuration under another fingerprint: a text or a training set has changed."""
    first = record(auroc=0.9)
    first.fingerprint = "before"
    store.put(first)
    store.put(record(auroc=0.6))
    text = tables.render(store.root)
    assert md_rows(text)["mine (1)"] == ["(60.0, 25.0)"]
    assert "Left out: 1 earlier record of CLIP on mine, computed again since" in text


def test_records_of_another_revision_of_the_method_do_not_mix(store: ResultStore) -> None:
    """A record that names no revision was made by the first."""
    for category, revision in (("a", {}), ("b", {"revision": 1}), ("c", {"revision": 1})):
        store.put(record(category=category, auroc=0.9, **revision))
    assert md_rows(tables.render(store.root))["mine (3)"] == ["(90.0, 25.0)"]
    store.put(record(category="a", auroc=0.6, revision=2))
    rows = md_rows(tables.render(store.root))
    assert rows["dataset (categories)"] == ["CLIP [revision 2]", "CLIP [revision 1]"]
    assert rows["mine (3)"] == ["(60.0, 25.0) [1 of 3]", "(90.0, 25.0)"]


@pytest.mark.parametrize(
    ("row", "shots", "head"),
    [
        ("full-shot", ALL_SHOTS, "WINCLIP@FULL-SHOT§"),
        ("4-shots", 4, "WINCLIP@4-SHOTS§"),
        ("s-g-only-1-shot", 1, "WINCLIP@S-G-ONLY-1-SHOT§"),
        ("14-shot", 4, "WINCLIP@14-SHOT, 4-shot§"),
        ("large", 4, "WINCLIP@LARGE, 4-shot§"),
    ],
)
def test_shots_that_a_row_is_named_after_are_said_once(
    row: str, shots: int, head: str, store: ResultStore
) -> None:
    store.put(record("clip"))
    store.put(record(f"winclip@{row}", shots=shots))
    heads = md_rows(tables.render(store.root))["dataset (categories)"]
    assert [h for h in heads if h.startswith("WINCLIP")] == [head]


def test_markers_limits_and_training_sets_are_noted(store: ResultStore) -> None:
    store.put(record("filo", untrained=True, group="papers", limit=16))
    store.put(record("musc", transductive=True, limit=16))
    store.put(record("winclip", shots=4, limit=16, preset="paper"))
    store.put(record("clip", limit=8, trained_on={"dataset": "visa", "fingerprint": "x"}))
    text = tables.render(store.root)
    heads = md_rows(text)["dataset (categories)"]
    assert heads == ["CLIP", "MUSC‡", "WINCLIP (paper), 4-shot§", "FILO†"]
    for note in (
        "† in its initial state, not trained.",
        "‡ sees all test images",
        "§ sees normal reference images",
        "CLIP: at most 8 images per category; MUSC: at most 16 images",
        "CLIP was trained on visa.",
        "Images at 518 px.",
        "AUPRO up to a false positive rate of 0.3.",
    ):
        assert note in text
    assert "**" not in text  # one comparable column has no competitor


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"recognised": "FiLo filo_train_on_visa.pth"}, "visa [recognised as FiLo filo_train_on_"),
        ({"leaks": "checked by name only"}, "visa [targets compared by name only]."),
        ({"said_by": "whoever imported it"}, "visa [as whoever imported it says]."),
        ({"leaks": "by name, file and pixels"}, "visa."),
        ({"dataset": "as released"}, "what its authors' file does not say."),
    ],
)
def test_how_a_training_set_is_known_is_noted(
    more: dict[str, str], said: str, store: ResultStore
) -> None:
    store.put(record("clip", trained_on={"dataset": "visa", **more}))
    assert f"CLIP was trained on {said}" in tables.render(store.root)


def test_failed_cells_are_named(store: ResultStore) -> None:
    from zsad.results.store import key_of

    store.put(record())
    store.fail(key_of(record("alfa")), "mine/a/000.png: cannot be opened")
    assert "alfa on mine/a, seed 0: mine/a/000.png: cannot be opened" in tables.render(store.root)


def test_datasets_stand_in_the_papers_order_with_domain_means(store: ResultStore) -> None:
    from zsad import registry
    from zsad.data.catalog import load_spec

    specs = [load_spec(n) for n in registry.list_datasets()]
    for spec in specs:
        store.put(record(dataset=spec.name))
    labels = list(md_rows(tables.render(store.root)))
    ordered = sorted(specs, key=lambda s: (s.order, s.name))
    evaluated = [sum(c.group == "test" for c in s.categories.values()) for s in ordered]
    sizes = [f" of {count}" if count > 1 else "" for count in evaluated]
    named = [f"{s.title} (1{of})" for s, of in zip(ordered, sizes)]
    assert [x for x in labels if re.search(r"\(1( of \d+)?\)$", x)] == named
    medical = sum(s.domain == "medical" for s in specs)
    assert (f"medical mean of {medical}" in labels) == (1 < medical < len(specs))


# ----------------------------------------------------------------------------- formats
NASTY = "50% <b>A&B_c</b> $x$ {y} #1 ~^\\ |z| `q` *s* [l](m) –"


def nasty_page() -> Page:
    line = Line(NASTY, ((Span(NASTY, 1), Span("2", 2)),), mean=True)
    data = ({"row": NASTY, "value": 1.5},)
    table = Table("t", NASTY, NASTY, (NASTY,), (line,), ((NASTY, 1),), data)
    return Page("p", NASTY, (table,), (NASTY,))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_html_shows_every_character_as_it_is() -> None:
    parser = _Text()
    parser.feed(FORMATS["html"](nasty_page()))
    assert parser.cells[:3] == ["", NASTY, NASTY]
    assert any(cell.startswith(NASTY + "2") for cell in parser.cells)
    assert parser.tags.count("b") == 1  # the best value; the label's own tag is text


def test_latex_escapes_every_special_character() -> None:
    text = FORMATS["tex"](nasty_page()).split("\\caption", 1)[1]
    assert "50\\% \\textless{}b\\textgreater{}A\\&B\\_c" in text
    assert "\\$x\\$ \\{y\\} \\#1 \\textasciitilde{}\\textasciicircum{}\\textbackslash{}" in text
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    assert "\\textbf{" in text
    assert "\\underline{2}" in text


def test_latex_says_the_notes_of_a_page_once_and_of_the_weights_at_every_table() -> None:
    page = nasty_page()
    three = tuple(dataclasses.replace(page.tables[0], name=f"t{i}") for i in range(3))
    page = dataclasses.replace(page, tables=three, notes=("Figures in percent.",), mark="a demo_")
    text = FORMATS["tex"](page)
    assert text.count("Figures in percent.") == text.count("footnotesize") == 1
    last = text.rindex("\\begin{table}")
    assert text.index("Tables~\\ref{tab:p:t0} to \\ref{tab:p:t2}: Figures in percent.") > last
    captions = re.findall(r"\\caption\{.*", text)
    assert len(captions) == 3
    assert all("(a demo\\_)" in caption for caption in captions)
    alone = FORMATS["tex"](dataclasses.replace(page, tables=three[:1]))
    assert "\\footnotesize Figures in percent." in alone


def test_markdown_keeps_cells_apart() -> None:
    text = FORMATS["md"](nasty_page())
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {3}
    assert "[l]\\(m)" in text
    assert "\\<b\\>A&B_c" in text


def test_csv_reads_back(store: ResultStore) -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](nasty_page()))))
    assert rows == [{"page": "p", "table": "t", "row": NASTY, "value": "1.5"}]
    store.put(record(auroc=0.123456))
    store.put(record(dataset="two", auroc=None))
    files = tables.write(store.root, ["csv"])
    overview = next(f for f in files if f.name == "overview.csv")
    values = {
        (r["row"], r["metric"]): (r["value"], r["count"], r["of"])
        for r in csv.DictReader(overview.open())
    }
    assert values["mine", "image_auroc"] == ("12.3456", "1", "1")
    assert values["two", "image_auroc"] == ("", "0", "1")
    assert values["mean of 2", "image_auroc"] == ("12.3456", "1", "2")


def test_write_makes_every_format_for_every_page(store: ResultStore) -> None:
    store.put(record())
    store.put(record(dataset="two/three"))
    files = tables.write(store.root)
    names = {str(f.relative_to(store.root)) for f in files}
    assert names == {
        f"tables/vit-l-14-336/{page}.{ending}"
        for page in ("overview", "mine", "two%2Fthree")
        for ending in ("md", "tex", "csv", "html")
    }
    assert all(f.stat().st_size for f in files)


def test_an_empty_store_has_no_pages(store: ResultStore) -> None:
    assert tables.write(store.root) == []
    assert tables.render(store.root) == ""


def test_records_without_info_are_shown(store: ResultStore) -> None:
    bare = record()
    bare.info = {}
    store.put(bare)
    assert md_rows(tables.render(store.root))["mine (1)"] == ["(50.0, 25.0)"]


def test_every_page_says_why_a_figure_is_undefined(store: ResultStore) -> None:
    """Overview, dataset, few-shot and ablation pages: what is "–" in a table has its reason."""
    for shots in (0, 1, 2):
        for category, auroc in (("bottle", None), ("cable", 0.9)):
            store.put(record("winclip", "mvtec", category, auroc=auroc, shots=shots))
    store.put(record("faprompt@base", "visa", "pcb1", auroc=None, protocol="faprompt-ablation"))
    pages = tables.pages(store.root)
    kinds = {p.name.rpartition("/")[2] for p in pages}
    assert {"overview", "mvtec", "few-shot", "ablation-faprompt-ablation"} <= kinds
    shown = 0
    for page in pages:
        texts = [
            "".join(s.text for s in cell)
            for table in page.tables
            for line in table.lines
            for cell in line.cells
        ]
        lacking = [t for t in texts if "–" in t or re.search(r"\[\d+ of \d+\]", t)]
        shown += len(lacking)
        reasons = [n for n in page.notes if n.startswith("– (image level)")]
        assert not lacking or any("one class only" in n for n in reasons), page.name
        assert not any("– undefined" in n for n in page.notes) or reasons or not lacking
    assert shown >= 4


def test_a_notebook_shows_pages_and_makes_a_frame_of_them(store: ResultStore) -> None:
    store.put(record(auroc=0.5))
    store.put(record(dataset="two", auroc=None))
    pages = tables.pages(store.root)
    html = pages[0]._repr_html_()
    assert html.count("<table>") == len(pages[0].tables)
    assert html.count("<li>") == len(pages[0].notes)
    assert pages._repr_html_().startswith(html)
    assert repr(pages[0]).startswith(f"<page {pages[0].name}: ")
    frame = pages.frame()
    assert len(frame) == sum(len(t.data) for p in pages for t in p.tables)
    overview = frame[frame["page"] == pages[0].name]
    found = overview[overview["metric"] == "image_auroc"].set_index("row")["value"]
    assert found["mine"] == 50
    assert found.isna()["two"]
    assert "<" not in type(pages)(())._repr_html_()
    assert len(type(pages)(()).frame()) == 0
    evil = type(pages)([nasty_page()])
    assert "<b>A&B" not in evil._repr_html_()
