"""Golden values of the released metric code: every row and column."""

from __future__ import annotations

import numpy as np
import pytest

from zsad.metrics import reference
from zsad.metrics.evaluate import evaluate

# column of the golden table -> our name; both copies of the released PRO agree
COLUMNS = {
    "pixel_auroc": "pixel_auroc",
    "pixel_aupro": "pixel_aupro_200",
    "pixel_ap": "pixel_ap",
    "pixel_f1": "pixel_f1max",
    "image_auroc": "image_auroc",
    "image_ap": "image_ap",
    "image_f1": "image_f1max",
    "pixel_aupro_fap": "pixel_aupro_200",
}
KINDS = ["boxes", "multi", "touching", "tiny", "border", "single"]
ROWS = [f"{kind}{ties}" for kind in KINDS for ties in ("", "_ties")]


@pytest.fixture(scope="module")
def inputs(recipe, golden):
    """``inputs(row) -> (maps, masks, image scores, labels)``, checked against the sums stored."""
    arrays, spec = golden("metrics_a")

    def build(row: str):
        kind, ties = row.removesuffix("_ties"), row.endswith("_ties")
        masks = recipe.metric_masks(kind, spec["n"], spec["size"], spec["seed"])
        maps = recipe.metric_scores(kind, masks, spec["seed"], quantised=ties)
        labels = (np.arange(spec["n"]) % 2 == 0).astype(np.int64)
        scores = recipe.metric_image_scores(kind, labels, spec["seed"], quantised=ties)
        np.testing.assert_array_equal(masks.sum((1, 2)), arrays[f"check_mask_sum_{row}"])
        np.testing.assert_allclose(
            maps.sum((1, 2), dtype=np.float64), arrays[f"check_map_sum_{row}"], rtol=1e-5
        )
        return maps, masks, scores.astype(np.float64), labels

    return build


@pytest.fixture(scope="module")
def expected(golden):
    """``expected(row) -> {column: value}``."""
    arrays, _ = golden("metrics_a")
    assert arrays["rows"].tolist() == ROWS
    assert arrays["columns"].tolist() == list(COLUMNS)
    return lambda row: dict(zip(COLUMNS, arrays["values"][ROWS.index(row)]))


@pytest.mark.parametrize("row", ROWS)
def test_exact_metrics_match(row, inputs, expected):
    ours = evaluate(*inputs(row), aupro_200=True)
    for column, value in expected(row).items():
        assert ours[COLUMNS[column]] == pytest.approx(value, abs=1e-6), column


@pytest.mark.parametrize("row", ROWS)
def test_binned_metrics_match_within_their_bounds(row, inputs, expected):
    ours = evaluate(*inputs(row), mode="binned", aupro_200=True)
    for column, value in expected(row).items():
        name = COLUMNS[column]
        # the approximation has no bound of its own: its stretched rates magnify bin errors
        bound = 2e-5 if name == "pixel_aupro_200" else ours["bounds"].get(name, 0.0)
        assert ours[name] == pytest.approx(value, abs=bound + 1e-6), column
    if row.endswith("_ties"):  # 32 levels: every bin holds one level, and this is known
        assert set(ours["bounds"].values()) == {0.0}


@pytest.mark.parametrize("row", ROWS)
def test_the_slow_reference_matches_too(row, inputs, expected):
    maps, masks, _, _ = inputs(row)
    value = expected(row)["pixel_aupro"]
    assert reference.aupro_200(maps, masks) == pytest.approx(value, abs=1e-6)


def test_the_approximation_is_not_the_exact_metric(inputs):
    """Why both stand side by side: they differ by points."""
    gaps = []
    for row in ROWS:
        ours = evaluate(*inputs(row), aupro_200=True)
        gaps.append(abs(ours["pixel_aupro"] - ours["pixel_aupro_200"]))
    assert max(gaps) > 0.01
