"""What a thing is called changes every prompt: it is a configuration, and the record tells it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zsad import tables
from zsad.results.store import ResultStore

Bench = Callable[..., dict[str, Any]]


def test_names_and_what_is_said_of_a_folder_are_told(bench: Bench, tmp_path: Path) -> None:
    """Two runs of one method under two names were one column, and a folder's files "differed"."""
    bench(overrides=["data.names=released"])
    bench()
    folder = f"folder:{tmp_path / 'things' / 'bolt'}"
    for said in (["data.folder.class_name=steel bolt"], []):
        bench(datasets=folder, overrides=said)
    store = ResultStore(tmp_path / "results")
    told = [{k: r.info.get(k) for k in ("names", "folder")} for r in store.records()]
    # The second run of each set the first one aside.
    assert told == [dict.fromkeys(("names", "folder"))] * 3
    (page,) = (p for p in tables.pages(store.root) if p.name.endswith("overview"))
    assert page.tables[0].heads == ("CLIP", "CLIP [names=released]")
    labels = [line.label for line in page.tables[0].lines]
    assert "bolt [class_name=steel bolt] (1)" in labels
    assert "bolt [as the folder says] (1)" in labels
    assert not any("Left out" in note for note in page.notes)


def test_an_edited_definition_is_computed_again_and_back_it_is_found(
    bench: Bench, definition: Path
) -> None:
    """Cells that were made with other words were taken for those of the new ones."""
    first = definition.read_text()
    bench()
    for old, new in (("prompt: bolt", "prompt: screw"), ("kind: texture", "kind: object")):
        definition.write_text(first.replace(old, new))
        assert bench(dry_run=True)["to_run"] == 2
    assert bench()["cells"]
    assert bench(dry_run=True)["to_run"] == 0
    definition.write_text(first)
    assert bench(dry_run=True)["to_run"] == 0
