"""What another program made is measured like a method of the house, and said to be imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import zsad
from tests.exchange.conftest import plane_of
from tests.runner.test_ignored import ignoring
from zsad.cli.main import main
from zsad.data.images import read_mask
from zsad.errors import DataError, RequestError
from zsad.exchange import exported
from zsad.exchange.imported import Import, run
from zsad.exchange.maps import MapWriter
from zsad.results import pixels
from zsad.results.aggregate import PARTIAL
from zsad.results.store import ResultStore, key_of
from zsad.runner.options import BenchOptions
from zsad.tables import pages
from zsad.tables.formats import markdown
from zsad.types import Sample

Bench = Callable[..., dict[str, Any]]


@pytest.fixture
def request_of(definition: Path, samples: list[Sample], tmp_path: Path) -> Callable[..., Import]:
    """A request for the maps of :func:`plane_of`, written to a folder."""

    def make(size: int = 64, left_out: int = 0, **changes: Any) -> Import:
        source = tmp_path / f"maps-{size}-{left_out}"
        writer = MapWriter(source)
        for s in samples[left_out:]:
            plane = plane_of(s, size)
            writer.add(s.uid, float(plane.mean()), plane)
        writer.close()
        plain = Import("PaDiM", source, str(definition), results=tmp_path / "results")
        return dataclasses.replace(plain, **changes)

    return make


def test_the_figures_are_those_of_evaluate(
    request_of: Callable[..., Import], samples: list[Sample]
) -> None:
    document = run(request_of())
    for cell in document["cells"]:
        own = [s for s in samples if s.category == cell["category"]]
        planes = np.stack([plane_of(s) for s in own])
        masks = np.stack([read_mask(s, (64, 64)) for s in own])
        expected = zsad.evaluate(
            planes, masks, [p.mean() for p in planes], [s.label for s in own], mode="binned"
        )
        for name, value in cell["metrics"].items():
            assert value == pytest.approx(expected[name], abs=1e-9), name
        assert (cell["n_normal"], cell["n_anomalous"]) == (4, 4)


def test_pixel_metrics_of_an_import_have_intervals_too(
    request_of: Callable[..., Import], samples: list[Sample]
) -> None:
    """The pixels of every image are stored with its score, as those of a run are."""
    store = ResultStore(run(request_of())["results_dir"])
    for record in store.records():
        frame = store.scores(key_of(record))
        assert frame is not None
        table = pixels.of_frame(frame)
        assert table is not None
        own = [s for s in samples if s.category == record.category]
        marked = [read_mask(s, (64, 64)).sum() for s in own]
        assert table.anomalous.sum(1).tolist() == marked


def test_maps_of_one_square_size_meet_masks_of_that_size(
    request_of: Callable[..., Import],
) -> None:
    document = run(request_of(size=32))
    assert set(document["imported"]["maps"].values()) == {"maps of 32 px"}
    assert all(c["metrics"]["pixel_auroc"] is not None for c in document["cells"])


def test_a_round_trip_of_a_method_is_the_method(
    bench: Bench, definition: Path, weights: Path, tmp_path: Path
) -> None:
    options = BenchOptions(
        methods="winclip",
        datasets=str(definition),
        backbone="file",
        weights=weights,
        results=tmp_path / "results",
        device="cpu",
        overrides=["backbone.image_size=56"],
    )
    made = exported.run(tmp_path / "maps.npz", options)
    assert made["exported"]["images"] == {".": 16}
    back = Import(
        "WinCLIP there and back",
        tmp_path / "maps.npz",
        str(definition),
        results=tmp_path / "results",
    )
    document = run(back)
    for mine, theirs in zip(made["cells"], document["cells"]):
        assert mine["category"] == theirs["category"]
        assert theirs["metrics"] == pytest.approx(mine["metrics"], abs=1e-6)
    assert run(back)["counters"] == {"cells_stored": 0}  # the same again
    with pytest.raises(RequestError, match="is there already"):
        exported.run(tmp_path / "maps.npz", options)
    with pytest.raises(RequestError, match=r"--maps .*: cannot be written \(Not a directory\)"):
        exported.run(tmp_path / "maps.npz" / "below", options)
    # The column stands beside ours and is ranked with it; a footnote says what it is.
    overview = markdown(next(p for p in pages(tmp_path / "results") if "overview" in p.name))
    assert "WinCLIP there and back (imported)" in overview
    assert "provenance not stated; maps of 56 px, image score: given; metrics by zsad." in overview
    assert overview.count("**") >= 4


@pytest.mark.parametrize("resize", ["bilinear", "native"])
def test_a_round_trip_leaves_out_what_is_ignored(
    resize: str, definition: Path, weights: Path, tmp_path: Path
) -> None:
    ignoring(definition, '"0,0,8,64"')
    policy = f"data.mask_resize={resize}"
    options = BenchOptions(
        methods="maskclip",
        datasets=str(definition),
        backbone="file",
        weights=weights,
        results=tmp_path / "results",
        device="cpu",
        overrides=["backbone.image_size=56", policy],
    )
    made = exported.run(tmp_path / "maps", options)
    assert made["failed"] == []
    back = Import("Back", tmp_path / "maps", str(definition), results=tmp_path / "results")
    document = run(dataclasses.replace(back, overrides=[policy]))
    for mine, theirs in zip(made["cells"], document["cells"]):
        assert theirs["metrics"] == pytest.approx(mine["metrics"], abs=1e-6)
        assert theirs["ignore"] == "0,0,8,64"
        assert theirs["score_sees_ignored"]  # given scores may rest on any pixel
    # Without scores those of the maps count, and of these the pixels that are looked at.
    (tmp_path / "maps" / "scores.csv").unlink()
    for path in (tmp_path / "maps").rglob("*.tiff"):
        plane = tifffile.imread(path)
        plane[:, :6] = 1000
        tifffile.imwrite(path, plane)
    peaks = run(dataclasses.replace(back, name="Peaks", overrides=[policy]))
    assert not any(cell["score_sees_ignored"] for cell in peaks["cells"])
    store = ResultStore(tmp_path / "results")
    for cell in store.cells():
        if cell.record.method.endswith("Peaks"):
            frame = store.scores(key_of(cell.record))
            assert frame is not None
            assert frame["score"].max() < 1000


def test_what_is_missing_is_refused_or_marked(
    request_of: Callable[..., Import], samples: list[Sample], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        run(request_of(left_out=5))
    for s in samples[:3]:
        assert s.uid in str(caught.value)
    assert "and 2 more" in str(caught.value)
    assert not list(ResultStore(tmp_path / "results").cells())  # nothing was stored
    document = run(request_of(left_out=5, partial=True, provenance="our line, May"))
    assert document["imported"]["left_out"]
    page = markdown(next(p for p in pages(tmp_path / "results") if "overview" in p.name))
    assert PARTIAL in page
    assert "**" not in page
    assert "PaDiM (imported): our line, May; maps of 64 px" in page


def test_maps_of_a_wrong_size_are_named(
    request_of: Callable[..., Import], samples: list[Sample], tmp_path: Path
) -> None:
    request = request_of()
    writer = MapWriter(request.source)
    for s in samples[:4]:
        writer.add(s.uid, 0.5, np.zeros((20, 30)))
    for s in samples:
        writer.add(s.uid, 0.5, plane_of(s)) if s not in samples[:4] else None
    writer.close()
    with pytest.raises(DataError, match="4 maps of the wrong size") as caught:
        run(request)
    assert f"{samples[0].uid} (30x20, its picture 64x64)" in str(caught.value)
    assert "and 1 more" in str(caught.value)


def test_maps_that_are_not_finite_are_counted_over_all_categories(
    request_of: Callable[..., Import], samples: list[Sample], tmp_path: Path
) -> None:
    request = request_of()
    chosen = [samples[0], samples[3], samples[8], samples[-1]]  # of both categories
    assert len({s.category for s in chosen}) == 2
    for s in chosen:
        (path,) = request.source.rglob(f"{Path(s.uid).with_suffix('.tiff')}")
        plane = tifffile.imread(path).copy()
        plane[3, 3] = np.nan
        tifffile.imwrite(path, plane)
    for partial in (False, True):
        with pytest.raises(DataError) as caught:
            run(dataclasses.replace(request, partial=partial))
        named = ", ".join(f"{s.uid} (holds NaN or infinity)" for s in chosen[:3])
        assert f"4 maps cannot be used: {named} and 1 more; make them again" in str(caught.value)
    assert not list(ResultStore(tmp_path / "results").cells())


@pytest.mark.parametrize("name", ["winclip", "WinCLIP", "a@b", "", "x" * 61, "<b>", "\x1b[2J"])
def test_a_name_that_cannot_be_a_column(name: str, request_of: Callable[..., Import]) -> None:
    with pytest.raises(RequestError, match="--name"):
        run(request_of(name=name))


def test_settings_that_change_nothing_are_refused(request_of: Callable[..., Import]) -> None:
    with pytest.raises(RequestError, match=r"backbone\.precision: changes nothing"):
        run(request_of(overrides=["backbone.precision=bf16"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--maps", "x"], "--maps: is of `zsad results import`"),
        (["show", "a", "metrics.mode=exact"], "takes no KEY=VALUE"),
        (["import", "--maps", "x", "--datasets", "mvtec"], "needs --name"),
        (["export", "--name", "x"], "--name: is of `zsad results import`"),
        (["import", "--methods", "clip"], "--methods: is of `zsad results export`"),
        (["export", "extra"], "takes no 'extra'"),
    ],
)
def test_options_of_another_action_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["results", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_import_by_command(
    request_of: Callable[..., Import], capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_of()
    words = ["--maps", str(request.source), "--datasets", str(request.datasets)]
    words += ["--results", str(request.results), "--name", "UniAD"]
    assert main(["results", "import", *words]) == 0
    out, _ = capsys.readouterr()
    assert "maps of 64 px, image score: given" in out
    assert "imported:UniAD" in out
    assert main(["results", "list", "--results", str(request.results)]) == 0
    assert "UniAD (imported)" in capsys.readouterr().out


def test_what_has_seen_normal_images_is_marked_and_never_among_zero_shot_columns(
    request_of: Callable[..., Import], tmp_path: Path
) -> None:
    run(request_of(name="Full", shots=-1))
    run(request_of(name="Few", shots=4))
    records = {r.method: r for r in ResultStore(tmp_path / "results").records()}
    shots = {name: record.info["shots"] for name, record in records.items()}
    assert shots == {"imported:Full": -1, "imported:Few": 4}
    text = "".join(map(markdown, pages(tmp_path / "results")))
    assert "Full (imported), full-shot§" in text
    assert "Few (imported), 4-shot§" in text
    assert "**" not in text
    run(request_of())
    run(request_of(name="UniAD"))
    assert "**" in "".join(map(markdown, pages(tmp_path / "results")))  # of the other two


@pytest.mark.parametrize("given", ["0", "-1", "some"])
def test_a_number_of_shots_that_is_none_is_refused(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["results", "import", "--name", "N", "--maps", "m", "--datasets", "synthetic"]
    assert main([*line, f"--shots={given}"]) == 2
    assert f"--shots {given}: give a number from 1 up, or all" in capsys.readouterr().err
