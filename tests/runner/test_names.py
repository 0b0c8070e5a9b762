"""Categories and pictures of any name in a sweep, and the progress bar that shows them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.hostile import NAMES, TEXTS, is_plain
from tests.runner.conftest import SIZE, write_dataset
from zsad.cli.main import main
from zsad.results.store import ResultStore
from zsad.runner.plan import Plan
from zsad.runner.progress import SweepProgress, TrainingProgress
from zsad.tables import write as write_tables


@pytest.fixture(scope="module")
def swept(
    weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ResultStore, list[str], int]:
    """The results of a folder whose categories have all those names; the exit code."""
    root = tmp_path_factory.mktemp("names")
    names = [name for kind, name in NAMES.items() if kind != "dots"]
    for name in names:
        write_dataset(root / "things", (name[:240],), count=2)
    argv = ["bench", "--methods", "clip", "--datasets", f"folder:{root / 'things'}", "--device",
            "cpu", "--backbone", "file", "--weights", str(weights), "--results", str(root / "r"),
            f"backbone.image_size={SIZE}", "--json"]  # fmt: skip
    return ResultStore(root / "r"), names, main(argv)


def test_a_category_of_any_name_is_stored_under_its_name(
    swept: tuple[ResultStore, list[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    store, names, code = swept
    assert code == 3  # those that are not UTF-8
    stored = {record.category for record in store.records()}
    text = {name[:240] for name in names if name.isprintable() or "\udce9" not in name}
    assert stored == {name for name in text if not any("\ud800" <= c <= "\udfff" for c in name)}
    for path in store.root.rglob("*.json"):
        assert is_plain(path.name)


def test_a_category_that_is_no_text_costs_itself(
    swept: tuple[ResultStore, list[str], int],
) -> None:
    store, _, _ = swept
    failed = {f.category: f.error for f in store.failures()}
    assert set(failed) == {NAMES["not UTF-8"], NAMES["only bytes"]}
    for error in failed.values():
        assert "the name is not UTF-8" in error


def test_what_is_made_of_them_can_be_read(
    swept: tuple[ResultStore, list[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    store, _, _ = swept
    for path in write_tables(store.root):
        assert is_plain(path.read_text(encoding="utf-8"))
    for verb in ("tables", "report"):
        assert main([verb, "--results", str(store.root)]) == 0
        assert is_plain("".join(capsys.readouterr()))
    page = (store.root / "report" / "index.html").read_text(encoding="utf-8")
    assert is_plain(page.replace("\t", ""))


# ------------------------------------------------------------------------------- progress
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_bar_shows_any_name_as_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, where markup would end the run or colour the line."""
    raw = io.StringIO()
    made = Console(file=raw, force_terminal=True, width=1000, color_system=None, markup=False,
                   highlight=False, emoji=False)  # fmt: skip
    monkeypatch.setattr("zsad.runner.progress.Console", lambda **_: made)
    for bar in (SweepProgress(Plan(None, "", False), True), TrainingProgress(True)):  # type: ignore[arg-type]
        with bar:
            bar.event(text)
            if isinstance(bar, SweepProgress):
                bar.images("things", text, 1)
    found = raw.getvalue()
    for code in ("\x1b]", "\x07", "\u202e", "\x9b", "\0"):
        assert code not in found
    if text.isprintable():
        assert text in found
