"""Results folders as a run leaves them, and a browser to look at reports with."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.metrics import spec
from zsad.results import examples
from zsad.results.examples import CellExamples, Example
from zsad.results.gallery import MapGallery
from zsad.results.records import CellKey, CellRecord
from zsad.results.store import ResultStore
from zsad.types import Explanation

EVIL = '<script>window.hacked=1</script><img src=x onerror="window.hacked=2">"&'
SIDE = examples.SIDE
FINGERPRINT = "f" * 16


def jpeg(shade: int = 120) -> bytes:
    """A small picture: a disc on a plain ground."""
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = np.full((SIDE, SIDE, 3), shade, dtype=np.uint8)
    pixels[(y - 112) ** 2 + (x - 112) ** 2 < 80**2] += 60
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def example(kind: str, score: float, uid: str, text: str = "a broken thing") -> Example:
    """One of the four kinds of example; anomalous ones have a square defect."""
    label = int(kind in ("detected", "missed"))
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[40:80, 60:100] = bool(label)
    return Example(
        uid=uid,
        kind=kind,
        label=label,
        defect=text if label else "",
        score=score,
        jpeg=jpeg(100 + 10 * len(kind)),
        map=mask.astype(np.float32) * score,
        mask=mask if label else None,
        explanations=[
            Explanation(text, 0.5),
            Explanation("a sound thing", 0.25, "normal", "template", region=(0.25, 0.5, 0.75, 1.0)),
        ],
    )


def put(
    store: ResultStore,
    method: str,
    category: str,
    value: float | None,
    *,
    dataset: str = "folder",
    text: str = "a broken thing",
    seed: int = 0,
    scores: Sequence[float] = (0.1, 0.2, 0.3, 0.25, 0.9),
    defects: Sequence[str] = ("",) * 5,
    **info: object,
) -> CellKey:
    """Store a cell with scores, curves, small maps and four example pictures."""
    metrics = dict.fromkeys(spec.names(), None) | {"image_auroc": value, "image_ap": 0.7}
    reasons = {} if value is not None else {"image_auroc": "no normal images"}
    record = CellRecord(
        method=method,
        dataset=dataset,
        category=category,
        seed=seed,
        fingerprint=FINGERPRINT,
        metrics=metrics,
        undefined=reasons | {"pixel_auroc": "the images have no masks"},
        n_normal=3,
        n_anomalous=2,
        seconds={"encode": 1.0, "head": 0.75, "map": 0.25, "decode": 9.0},
        info={
            "title": method.upper(),
            "group": "baselines",
            "backbone": "zsad-tiny",
            "banner": "bundled demonstration backbone; not comparable with published results",
            **info,
        },
    )
    table = {
        "uid": list("abcde"),
        "label": [0, 0, 0, 1, 1],
        "defect": list(defects),
        "score": list(scores),
        "path": list("abcde"),
    }
    store.put(record, table)
    key = CellKey(method, dataset, category, seed, FINGERPRINT)
    shown = [
        example("detected", 0.9, f"{category}/{text}.png", text),
        example("missed", 0.25, f"{category}/d.png"),
        example("false alarm", 0.3, f"{category}/c.png"),
        example("clean", 0.1, f"{category}/a.png"),
    ]
    curve = {
        "x_name": "false-positive rate",
        "y_name": "true-positive rate",
        "x": [0, 0, 1],
        "y": [0, 0.5, 1],
    }
    ramp = np.arange(28 * 28, dtype=np.float32).reshape(28, 28)
    maps = MapGallery.of(list("abcde"), [ramp * (i + 1) for i in range(5)])
    curves = {"image_roc": curve, "pixel_pro": curve}
    examples.save(store.root, key, CellExamples(shown, curves, maps))
    return key


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """Two methods, hostile texts, an undefined figure, and a cell that failed."""
    store = ResultStore(tmp_path / "results")
    put(store, "clip", EVIL, 0.9, text=EVIL)
    put(store, "clip", "plain", None)
    put(store, "winclip", "plain", 0.8)
    store.write_manifest({"id": "1", "finished": "2020-01-01T10:20:30", "note": EVIL})
    store.fail(CellKey("alfa", "folder", "plain", 0, "x"), f"broken {EVIL}", "CellError")
    return store


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    """Three methods on two of the papers' datasets, with the backbone of one paper."""
    store = ResultStore(tmp_path_factory.mktemp("sweep"))
    paper = {"backbone": "vit-l-14-336", "banner": "", "protocol": "faprompt"}
    for i, method in enumerate(("clip", "winclip", "alfa")):
        for j, category in enumerate(("carpet", "metal_nut", "grid")):
            put(store, method, category, 0.5 + 0.1 * i + 0.05 * j, dataset="mvtec", **paper)
        put(store, method, "brain", 0.9 - 0.2 * i, dataset="brainmri", **paper)
    return store
