"""When a figure may be called equal to a printed one: the verdicts that were once wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from zsad import config as cfg
from zsad import registry
from zsad.protocols import load_protocol
from zsad.results.conditions import SEVERE, Match, match, matched, of_images
from zsad.results.published import MEAN, Published, Reference
from zsad.results.records import CellRecord

L, B = ("vit-l-14-336", 518), ("vit-b-16-plus-240", 240)
STOCK = {"source": "detector", "answered": 9, "unanswered": 0}
AUTHORS = {**STOCK, "recognised": "grounding_train_on_visa.pth"}
NONE = {"source": "none", "reason": "the extra is missing"}


def record(
    label: str,
    backbone: tuple[str, int] = L,
    preset: str = "paper",
    part: str = "test",
    boxes: dict[str, Any] | None = None,
    trained: dict[str, Any] | None = None,
    protocol: str = "filo",
    **overrides: Any,
) -> CellRecord:
    """A whole record on MVTec AD as a run of a protocol leaves it."""
    name, _, slug = label.partition("@")
    entry = registry.methods()[name]
    preset = preset if preset in entry.presets else "default"
    rows = [r.layer for r in load_protocol(protocol).rows if slug and r.stored == label]
    config = entry.resolve(*(("row", r) for r in rows), ("x", overrides), ("p", {"preset": preset}))
    info: dict[str, Any] = {
        "backbone": backbone[0],
        "image_size": backbone[1],
        "weights_source": "hub:openai",
        "preset": preset,
        "revision": entry.revision,
        "config": cfg.identity(config),
        "protocol": protocol,
        "variant": "",
        "limit": 0,
        "mask_resize": "bilinear",
        "boxes": boxes or {},
        "trained_on": {},
    }
    if entry.trained:
        info["trained_on"] = {"dataset": "visa", "part": part} if trained is None else trained
    return CellRecord(label, "mvtec", "bottle", 0, "", {"image_auroc": 0.9}, {}, 1, 1, {}, info)


def printed(label: str, paper: str, shots: int | None = None, table: int = 0) -> Reference:
    found = Published.load().lookup(label, "mvtec", MEAN, "image_auroc", paper=paper)
    return next(r for r in found if r.shots == shots and table in (0, r.table))


VISA = {"dataset": "visa", "part": "test", "epochs": 15, "images": 2162}


@pytest.mark.parametrize(
    ("trained", "degree", "point"),
    [
        (VISA, "yes", ""),
        ({**VISA, "images": 4}, "no", "trained with 4 images, not 2162"),
        ({}, "partly", "what it was trained on is not known"),
        ({"dataset": "as released"}, "partly", "trained on as released, not visa"),
        ({**VISA, "said_by": "whoever imported it"}, "partly", "as whoever imported it says"),
        ({**VISA, "known_as": "AnomalyCLIP epoch_1.pth"}, "partly", "its authors do not evaluate"),
        ({**VISA, "revision": 1}, "partly", "trained by revision 1"),
    ],
)
def test_a_training_is_more_than_the_name_of_its_dataset(
    trained: dict[str, Any], degree: str, point: str
) -> None:
    found = verdict(printed("anomalyclip", "FiLo"), record("anomalyclip", trained=trained))
    assert found.degree == degree, found.points
    assert (not point and not found.points) or any(point in p for p in found.points)


@pytest.mark.parametrize(
    ("info", "metric", "point"),
    [
        ({"precision": "bf16"}, "image_auroc", "precision bf16, not fp32"),
        ({"names": "released"}, "image_auroc", "names released, not spoken"),
        ({"metrics": {"fpr_limit": 0.1}}, "pixel_aupro", "AUPRO up to 0.1, not 0.3"),
        ({"metrics": {"fpr_limit": 0.1}}, "image_auroc", ""),
    ],
)
def test_settings_of_the_run_are_conditions(info: dict[str, Any], metric: str, point: str) -> None:
    one = record("winclip", B)
    one.info |= info
    found = match(printed("winclip", "FiLo"), one, metric)
    own = [p for p in found.points if "another quantity" not in p]
    assert own == ([point] if point else [])


def on(category: str, normal: int, anomalous: int, dataset: str = "mvtec", **info: Any) -> Any:
    one = record("winclip", B)
    one.info |= info
    return replace(one, dataset=dataset, category=category, n_normal=normal, n_anomalous=anomalous)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([on("leather", 32, 92)], ""),
        ([on("tile", 33, 84)], ""),  # the other count that circulates
        ([on("leather", 4, 11)], "only 4 of 32 normal and 11 of 92 anomalous images"),
        ([on("leather", 60, 11)], "other images: 60 normal, not 32, and 11 anomalous, not 92"),
        ([on("leather", 2, 2, limit=4)], ""),  # told as a limit
        (
            [on("leather", 4, 11), on("grid", 1, 1), on("bottle", 20, 63)],
            "other images than published in 2 categories (leather: only 4 of 32 normal",
        ),
        ([on("electrical_commutator", 286, 54, "sdd", variant="thirds")], ""),
        ([on("electrical_commutator", 347, 52, "sdd", variant="whole")], ""),
        ([on("electrical_commutator", 3, 52, "sdd", variant="whole")], "only 3 of 347 normal"),
        ([on("electrical_commutator", 3, 5, "sdd", variant="shared-drive")], ""),  # unconfirmed
        ([on("anything", 3, 5, "mine")], ""),
    ],
)
def test_a_part_of_a_dataset_is_not_the_dataset(records: list[CellRecord], said: str) -> None:
    """A download that broke off gives figures of other images than the paper's."""
    found = of_images(records)
    assert bool(found) == bool(said)
    assert all(point.startswith(SEVERE) for point in found)
    assert "; ".join(found).startswith(said)


def test_a_figure_over_fewer_seeds_than_printed_is_not_equal() -> None:
    """WinCLIP's few-shot figures are printed with their deviation over five draws."""
    (figure,) = (
        r
        for r in Published.load().lookup("winclip@1-shot", "mvtec", MEAN, "image_auroc")
        if r.protocol == "alfa-few-shot"
    )
    one = record("winclip@1-shot", B, protocol="alfa-few-shot")
    seeds = [replace(one, seed=s, n_normal=20, n_anomalous=63) for s in range(5)]
    assert "1 seed, not 5" in matched(figure, seeds[:1], "image_auroc").points
    assert not any("seed" in p for p in matched(figure, seeds, "image_auroc").points)


def test_every_record_behind_a_figure_is_asked() -> None:
    """A mean of which one category was run in another way is not the paper's."""
    plain = replace(record("winclip", B), n_normal=20, n_anomalous=63)
    other = replace(plain, category="grid", n_normal=21, n_anomalous=57)
    other.info = {**plain.info, "mask_resize": "native"}
    figure = printed("winclip", "FiLo")
    assert matched(figure, [plain], "image_auroc").degree == "yes"
    assert "masks resized native" in "; ".join(
        matched(figure, [plain, other], "image_auroc").points
    )


def verdict(reference: Reference, of: CellRecord) -> Match:
    return match(reference, of, "image_auroc")


@pytest.mark.parametrize(
    ("of", "reference", "degree", "point"),
    [
        (record("filo", boxes=NONE), ("filo", "FiLo"), "no", "no boxes"),
        (
            record("filo", boxes=AUTHORS, train={"epochs": 1}),
            ("filo", "FiLo"),
            "no",
            "configuration train.epochs=1",
        ),
        (record("filo", boxes=STOCK), ("filo", "FiLo"), "partly", "another detector"),
        (
            record("filo", boxes={**AUTHORS, "unanswered": 1}),
            ("filo", "FiLo"),
            "no",
            "no boxes for some of the images",
        ),
        (record("filo", boxes=AUTHORS), ("filo", "FiLo"), "yes", ""),
        (
            record("filo@t4-boxes", boxes=NONE, protocol="filo-ablation"),
            ("filo@t4-boxes", "FiLo"),
            "no",
            "no boxes",
        ),
        (record("winclip", L), ("winclip", "FiLo"), "no", "backbone vit-l-14-336, not vit-b-16"),
        (record("winclip", B), ("winclip", "FiLo"), "yes", ""),
        (record("winclip", B, protocol="faprompt"), ("winclip", "FAPrompt"), "yes", ""),
        (
            record("patchcore", B, protocol="alfa-few-shot", shots=1),
            ("patchcore@1-shot", "ALFA", 1),
            "no",
            "features of CLIP, not of wide-resnet-50",
        ),
        (record("alfa", B, protocol="alfa"), ("alfa", "ALFA"), "partly", "texts of gpt-3.5"),
        (
            record("anomalyclip", part="test", protocol="faprompt"),
            ("anomalyclip", "FAPrompt"),
            "yes",
            "",
        ),
        (
            record("anomalyclip", part="all", protocol="faprompt"),
            ("anomalyclip", "FAPrompt"),
            "no",
            "trained on part all, not test",
        ),
        (
            record("faprompt", part="test", protocol="faprompt"),
            ("faprompt", "FAPrompt"),
            "no",
            "trained on part test, not all",
        ),
        (record("mvfa", protocol="kanoclip"), ("mvfa", "KAnoCLIP"), "partly", "image size 518"),
        (record("winclip", B, temperature=1.0), ("winclip", "FiLo"), "partly", "temperature=1"),
        (record("filo", boxes=AUTHORS, preset="default"), ("filo", "FiLo"), "partly", "preset def"),
        (record("winclip", B, preset="default"), ("winclip", "FiLo"), "yes", ""),  # resolves alike
    ],
)
def test_verdicts(of: CellRecord, reference: tuple[Any, ...], degree: str, point: str) -> None:
    found = verdict(printed(*reference), of)
    assert found.degree == degree, found.points
    assert (not point and not found.points) or any(point in p for p in found.points)


@pytest.mark.parametrize(
    ("recognised", "degree"), [("9_12_4_multiscale/epoch_15.pth", "yes"), ("", "partly")]
)
def test_an_imported_official_checkpoint_can_be_equal_to_its_authors_log(
    recognised: str, degree: str
) -> None:
    trained = {"dataset": "visa", "part": "test", "recognised": recognised}
    one = record("anomalyclip", preset="released", trained=trained)
    reference = printed("anomalyclip", "AnomalyCLIP's released log")
    assert reference.kind == "authors' log"
    assert verdict(reference, one).degree == degree


def test_a_recognised_file_is_set_beside_the_log() -> None:
    trained = {"dataset": "visa", "part": "test", "recognised": "filo_train_on_visa.pth"}
    one = record("filo", preset="released", trained=trained, boxes=AUTHORS)
    best = Published.load().best("filo", "mvtec", "bottle", "image_auroc", one.info)
    assert best is not None
    assert best.paper == "FiLo's released log"
    assert verdict(best, one).degree == "yes"


def test_a_third_partys_preset_is_not_equal_to_the_paper() -> None:
    """WinCLIP's own authors released nothing: its preset `released` is somebody else's code."""
    found = verdict(printed("winclip", "FiLo"), record("winclip", B, preset="released"))
    assert found.degree == "no"
    assert "a re-implementation's configuration, not the paper's" in found.points


def test_a_log_of_a_training_free_method_needs_no_released_file() -> None:
    """MuSc's README is of its code, and a code has no checkpoint that could be recognised."""
    reference = printed("musc", "MuSc's README")
    assert reference.kind == "authors' log"
    found = verdict(reference, record("musc", preset="released"))
    assert found.degree == "partly"
    assert not [p for p in found.points if "released file" in p or "preset" in p]
    assert "preset default, not released" in verdict(reference, record("musc")).points


@pytest.mark.parametrize("kind", ["re-implementation", "secondary"])
def test_other_kinds_are_never_equal(kind: Any) -> None:
    one = replace(printed("winclip", "FiLo"), kind=kind)
    assert verdict(one, record("winclip", B)).degree == "no"


def test_keys_that_change_no_figure_are_no_difference() -> None:
    one = record("filo", boxes=AUTHORS, mmci={"fold": "never"}, grounding={"enabled": True})
    assert verdict(printed("filo", "FiLo"), one).points == ()


@pytest.mark.parametrize("name", [n for n, e in registry.methods().items() if e.differs])
def test_what_a_method_says_of_itself_is_a_point(name: str) -> None:
    reference = next(r for r in Published.load().references if name in r.methods)
    found = match(reference, record(name), reference.metric)
    assert set(registry.methods()[name].differs) <= set(found.points)
    assert found.degree != "yes"


OPENAI = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
HUB = "timm/vit_base_patch16_plus_clip_240.laion400m_e31@0123456789ab"


@pytest.mark.parametrize(
    ("info", "degree", "point"),
    [
        ({"weights_sha256": OPENAI}, "yes", ""),  # of a record without a grade, known by its hash
        ({"weights_sha256": OPENAI, "weights_grade": "known"}, "yes", ""),
        ({"weights_sha256": "ab" * 32, "weights_grade": "hub"}, "yes", ""),
        # A record without a grade, whose weights were believed by the name of their file.
        ({"weights_sha256": "ab" * 32}, "no", "unknown weights: openai, sha256 abababababab"),
        (
            {
                "weights_sha256": "ab" * 32,
                "weights_grade": "unknown",
                "banner": "unknown weights: ViT-L-14-336px.pt, sha256 ab, of no published file",
            },
            "no",
            "unknown weights: ViT-L-14-336px.pt",
        ),
        (
            {"weights_grade": "hub", "banner": f"asked for x/laion400m_e32, loaded {HUB}"},
            "partly",
            f"asked for x/laion400m_e32, loaded {HUB}",
        ),
    ],
)
def test_weights_are_what_their_content_says(info: dict[str, str], degree: str, point: str) -> None:
    one = record("winclip", B, protocol="faprompt")
    one.info.update(info)
    found = verdict(printed("winclip", "FAPrompt"), one)
    assert found.degree == degree, found.points
    assert (not point and not found.points) or any(p.startswith(point) for p in found.points)
