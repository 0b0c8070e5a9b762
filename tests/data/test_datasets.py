"""All datasets load from the layout in which they are distributed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.miniatures import WRITERS, write_miniature
from zsad.data.catalog import group_members, load_spec, named, select_datasets
from zsad.data.images import read_image, read_mask
from zsad.data.index import DatasetIndex, load_index
from zsad.errors import DataError, RequestError
from zsad.types import Sample


def test_miniatures_cover_every_dataset() -> None:
    assert set(WRITERS) == {*group_members("extended"), *group_members("more")}
    assert len(group_members("extended")) == 22
    assert len(group_members("all")) == 19
    assert len(group_members("industrial")) + len(group_members("medical")) == 19


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_layout_as_distributed(name: str, tmp_path: Path) -> None:
    """Counts, labels and masks; every picture opens; the bright rectangle lies in its mask."""
    written = write_miniature(name, tmp_path)
    index = load_index(name, tmp_path)
    spec = load_spec(name)
    assert index.counts() == written.test
    assert index.variant == spec.default_variant
    assert not index.missing
    assert len({s.uid for s in index.samples}) == len(index.samples)
    for sample in index.samples:
        pixels = np.asarray(read_image(sample.image, sample.crop))
        assert pixels.ndim == 3
        if "pixel" not in spec.levels:
            assert sample.mask is None
            continue
        mask = read_mask(sample)
        assert mask.shape == pixels.shape[:2]
        assert bool(mask.any()) == bool(sample.label)
        if sample.label and sample.crop is None:
            # JPEG masks mark a rim of up to 8 pixels around the rectangle
            assert pixels[mask].mean() > pixels[~mask].mean() + 50


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_the_dataset_itself_may_be_the_root(name: str, tmp_path: Path) -> None:
    """The same samples whether --data-root is the folder above or the dataset's own."""
    written = write_miniature(name, tmp_path)
    assert load_index(name, written.folder).fingerprint == load_index(name, tmp_path).fingerprint


def _uids(index: DatasetIndex, split: str, label: int) -> list[str]:
    return [s.uid for s in index.samples if s.split == split and s.label == label]


def test_train_parts(tmp_path: Path) -> None:
    """Training images are normal ones, but for DAGM, whose training phase has defects, too."""
    expected = {"mvtec": (30, 0), "visa": (24, 0), "dagm": (20, 10), "liverct": (3, 0)}
    expected |= {"sdd": (15, 0), "aitex": (6, 0), "elpv": (6, 0), "lag": (6, 0), "tn3k": (0, 0)}
    for name, counts in expected.items():
        write_miniature(name, tmp_path)
        assert load_index(name, tmp_path).counts("train") == counts, name


def test_variants_have_names(tmp_path: Path) -> None:
    for name in ("sdd", "dagm", "elpv", "lag", "brainmri", "aitex", "covid19"):
        write_miniature(name, tmp_path)
    counts = {
        ("sdd", "whole"): (4, 4),
        ("dagm", "balanced"): (20, 20),
        ("elpv", "whole"): (8, 3),
        ("lag", "whole"): (8, 3),
        ("brainmri", "held-out"): (1, 3),
        ("aitex", "all-tiles"): (8, 3),
        ("covid19", "pneumonia-too"): (3, 6),
    }
    for (name, variant), expected in counts.items():
        index = load_index(name, tmp_path, variant)
        assert (index.variant, index.counts()) == (variant, expected)
    with pytest.raises(RequestError, match="did you mean 'whole'"):
        load_index("sdd", tmp_path, "wole")


def test_a_revision_of_the_rules_above_one_changes_the_fingerprint(tmp_path: Path) -> None:
    write_miniature("btad", tmp_path)
    spec = load_spec("btad")
    assert spec.revision == 1
    found = {n: load_index(replace(spec, revision=n), tmp_path) for n in (1, 2, 3)}
    assert found[1].fingerprint == load_index("btad", tmp_path).fingerprint
    assert len({index.fingerprint for index in found.values()}) == 3
    assert found[1].samples == found[2].samples


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", "revision=0 must be a whole number from 1 up"),
        ("1.5", r"revision=1\.5 .* must be a whole number"),
        ("true", "revision=True .* must be a whole number"),
    ],
)
def test_a_revision_is_a_whole_number(value: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: Mine\ncategories: {a: {prompt: a}}\ndefault_variant: v\n"
        f"variants: {{v: {{title: v, layouts: [{{indexer: mvtec_like}}]}}}}\nrevision: {value}\n"
    )
    with pytest.raises(RequestError, match=message) as caught:
        load_spec(str(path))
    assert "mine.yaml" in str(caught.value)


def test_every_definition_is_complete() -> None:
    for name in select_datasets("extended,more"):
        spec = load_spec(name)
        assert spec.licence, name
        assert spec.home.startswith("https://"), name
        assert spec.citation, name
        assert spec.archive is not None, name
        assert spec.archive.how, name
        assert all(c.prompt for c in spec.categories.values()), name
        assert spec.auxiliary == ("visa" if name == "mvtec" else "mvtec")
        for variant in spec.variants.values():
            assert all(layout.looks for layout in variant.layouts), name


def test_counts_of_categories_add_up() -> None:
    for name in select_datasets("extended,more"):
        spec = load_spec(name)
        rows = [c.test for c in spec.categories.values() if c.test]
        if rows:
            total = spec.variant(spec.default_variant).test
            assert (sum(r[0] for r in rows), sum(r[1] for r in rows)) == total, name


def test_reorganised_visa(tmp_path: Path) -> None:
    """The 1cls form that also circulates: good and bad, masks of 0 and 255."""
    from tests.data.miniatures import Painter, mvtec_like

    categories = list(load_spec("visa").categories)
    mvtec_like(tmp_path / "VisA" / "1cls", Painter(0), categories, ("bad",), mask_name="{:03}.png")
    index = load_index("visa", tmp_path)
    assert index.counts() == (24, 24)
    assert index.counts("train") == (24, 0)


def test_samples_are_listed_in_natural_order(tmp_path: Path) -> None:
    write_miniature("cvc_clinicdb", tmp_path)
    for extra in (10, 11):
        for part in ("Original", "Ground Truth"):
            folder = tmp_path / "CVC-ClinicDB" / part
            (folder / f"{extra}.tif").write_bytes((folder / "1.tif").read_bytes())
    uids = _uids(load_index("cvc_clinicdb", tmp_path), "test", 1)
    assert uids == [f"Original/{i}.tif" for i in (1, 2, 3, 4, 10, 11)]


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    written = write_miniature("br35h", tmp_path)
    before = load_index("br35h", tmp_path).fingerprint
    assert load_index("br35h", tmp_path).fingerprint == before
    (written.folder / "no" / "no0.jpg").write_bytes(b"other")
    assert load_index("br35h", tmp_path).fingerprint != before


# --------------------------------------------------------------------------- what is wrong
def test_wrong_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder") as caught:
        load_index("mvtec", tmp_path / "nowhere")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"dataset mvtec: not found in .*zsad data prepare mvtec"):
        load_index("mvtec", tmp_path)
    with pytest.raises(DataError, match="give --data-root"):
        load_index("mvtec", None)


def test_half_extracted_archive(tmp_path: Path) -> None:
    written = write_miniature("br35h", tmp_path)
    for path in (written.folder / "yes").iterdir():
        path.unlink()
    (written.folder / "yes").rmdir()
    with pytest.raises(DataError, match="folder yes is missing; was the archive extracted whole"):
        load_index("br35h", tmp_path)


def test_missing_masks(tmp_path: Path) -> None:
    written = write_miniature("mvtec", tmp_path)
    (written.folder / "tile" / "ground_truth" / "cut" / "001_mask.png").unlink()
    with pytest.raises(DataError, match=r"tile/test/cut: 1 of 2 anomalous images without a mask"):
        load_index("mvtec", tmp_path)
    index = load_index("mvtec", tmp_path, strict=False)
    assert len(index.problems) == 1


def test_missing_images_of_a_list(tmp_path: Path) -> None:
    written = write_miniature("visa", tmp_path)
    (written.folder / "candle" / "Data" / "Images" / "Normal" / "0002.JPG").unlink()
    with pytest.raises(DataError, match=r"1 of \d+ files missing \(first: candle/Data"):
        load_index("visa", tmp_path)


def test_absent_categories_are_noted(tmp_path: Path) -> None:
    import shutil

    written = write_miniature("mpdd", tmp_path)
    shutil.rmtree(written.folder / "tubes")
    index = load_index("mpdd", tmp_path)
    assert index.missing == ("tubes",)
    assert "tubes" not in index.categories
    assert "1 of 6 categories not there: tubes" in index.notes[0]


# ------------------------------------------------------------------------------- real data
def _load(shared_dir: Path, name: str) -> DatasetIndex:
    return load_index(name, shared_dir / "data")


def _defects(samples: list[Sample]) -> dict[str, int]:
    names = [s.defect for s in samples if s.label]
    return {name: names.count(name) for name in sorted(set(names))}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("brainmri", (98, 155)),
        ("headct", (100, 100)),
        ("cvc_clinicdb", (0, 58)),
        ("kvasir", (0, 5)),
        ("covid19", (60, 60)),
        ("mvtec", (4, 11)),
    ],
)
def test_real_samples(shared_dir: Path, name: str, counts: tuple[int, int]) -> None:
    index = _load(shared_dir, name)
    assert index.counts() == counts
    if "pixel" in index.spec.levels:
        assert all(s.mask for s in index.samples if s.label)


def test_real_leather(shared_dir: Path) -> None:
    index = _load(shared_dir, "mvtec")
    assert index.counts("train") == (4, 0)
    assert list(index.categories) == ["leather"]
    assert _defects(index.samples) == {"color": 1, "cut": 2, "fold": 2, "glue": 3, "poke": 3}


def test_real_frames_have_three_channels(shared_dir: Path) -> None:
    """Trap 1: frame 1 has channel means of about 111, 69 and 40."""
    pixels = np.asarray(read_image(_load(shared_dir, "cvc_clinicdb").samples[0].image))
    assert pixels.shape == (288, 384, 3)
    assert [round(float(m)) for m in pixels.mean(axis=(0, 1))] == [111, 69, 40]


def test_real_masks_above_zero(shared_dir: Path) -> None:
    """Trap 2: the threshold decides how much of frame 1 is marked."""
    from dataclasses import replace

    sample = _load(shared_dir, "cvc_clinicdb").samples[0]
    assert int(read_mask(sample).sum()) == 24187
    assert int(read_mask(replace(sample, mask_threshold=127)).sum()) == 16978


def test_real_jpeg_masks(shared_dir: Path) -> None:
    """Trap 3: JPEG masks mark 1 to 5 percent more above 0 than above 127."""
    from dataclasses import replace

    for sample in _load(shared_dir, "kvasir").samples:
        low = int(read_mask(sample).sum())
        high = int(read_mask(replace(sample, mask_threshold=127)).sum())
        assert 1.005 < low / high < 1.06


@pytest.mark.parametrize("name", ["dagm", "visa"])
def test_label_files_alone(shared_dir: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"[\d,]+ of [\d,]+ files missing \(first: ") as caught:
        _load(shared_dir, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dagm", "visa"])
def test_counts_of_label_files(shared_dir: Path, name: str) -> None:
    """The label files alone give the published counts of every category."""
    index = load_index(name, shared_dir / "data", strict=False)
    assert index.counts() == index.spec.variant(index.variant).test
    for key, category in index.spec.categories.items():
        assert index.counts("test", key) == category.test
        assert index.counts("train", key) == category.train


def test_elpv_from_its_package() -> None:
    """Trap 7, and 18: the split is rebuilt from the order of the label file."""
    pytest.importorskip("elpv_dataset")
    index = load_index("elpv")
    assert index.counts() == (377, 715)
    assert index.counts("train") == (1131, 0)
    assert index.notes == ("401 cells of uncertain label are left out",)
    assert load_index("elpv", variant="whole").counts() == (1508, 715)
    kinds = [s.defect for s in load_index("elpv", variant="whole").samples]
    assert (kinds.count("mono"), kinds.count("poly")) == (588 + 313, 920 + 402)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mvtec", "mvtec"),
        ("MVTec AD", "mvtec"),
        ("MVTecAD", "mvtec"),
        ("mvtec_anomaly_detection", "mvtec"),
        ("mvtec-ad", "mvtec"),
        ("VisA", "visa"),
        ("Kvasir-SEG", "kvasir"),
        ("VisA,MVTec AD", "visa + mvtec"),
        ("visa + visa", "visa"),
        ("our own pictures", "our own pictures"),
    ],
)
def test_a_dataset_is_known_by_every_name_of_it(text: str, name: str) -> None:
    """What an imported file was trained on is compared with targets by name: "VisA" was none."""
    assert named(text, "--trained-on") == name


@pytest.mark.parametrize("text", ["mvtek", "", "visa,", "kvasirr"])
def test_a_name_that_is_nearly_one_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"^--trained-on"):
        named(text, "--trained-on")
