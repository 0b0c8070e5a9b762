"""The list of metrics: whole, in order, torch-free, and the settings that choose from it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from zsad import config as cfg
from zsad.errors import RequestError
from zsad.metrics import spec
from zsad.metrics.spec import METRICS


def settings(**values: Any) -> cfg.MetricSettings:
    return cfg.build(cfg.MetricSettings, values, origin="a test", prefix="metrics.")


def test_the_seven_metrics_of_every_record_are_as_they_were() -> None:
    assert spec.names() == (
        *("image_auroc", "image_ap", "image_f1max"),
        *("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"),
    )
    assert [m.full_title for m in spec.headline()] == [
        *("image AUROC", "image AP", "pixel AUROC", "pixel AUPRO")
    ]
    assert [t[:2] for t in spec.tables(METRICS)] == [
        ("image", "Image level (AUROC, AP)"),
        ("pixel", "Pixel level (AUROC, AUPRO)"),
        ("further", "Further metrics (image F1-max, pixel AP, pixel F1-max)"),
        (
            "pixel-200",
            "Pixel level (AUPRO in 200 steps, the released repositories' approximation)",
        ),
        ("on-request", "Metrics on request (pixel IoU-max, pixel AUPIMO)"),
    ]
    assert spec.few_shot("pixel") == ("pixel_auroc", "pixel_aupro", "pixel_f1max")


@pytest.mark.parametrize("entry", METRICS.values(), ids=METRICS)
def test_every_entry_is_whole(entry: spec.MetricSpec) -> None:
    assert METRICS[entry.name] is entry
    assert entry.name.startswith(f"{entry.level}_")
    assert entry.question.endswith((".", "?"))
    assert entry.table in {group.name for group in spec.GROUPS}
    assert bool(entry.function) != bool(entry.states)
    for place in (entry.function, entry.states, entry.bound, entry.rows, entry.reference):
        assert not place or callable(spec.resolve(place))
    assert not entry.flag or entry.optional
    assert not entry.stands_for or entry.stands_for in METRICS


def test_the_list_and_what_prints_it_need_no_torch() -> None:
    code = (
        "import sys, zsad.metrics.spec, zsad.tables, zsad.cli.bench, zsad.results.document; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------- settings
def test_settings_choose() -> None:
    def more(**values: Any) -> list[str]:
        chosen = spec.chosen(cfg.to_dict(settings(**values)))
        return [name for name in chosen if name not in spec.names()]

    assert more() == []
    assert more(aupimo=True, aupro_200=True) == ["pixel_aupro_200", "pixel_aupimo"]
    assert more(extra=["pixel_ioumax"]) == ["pixel_ioumax"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pixel_ioumx", "unknown metric 'pixel_ioumx' .did you mean 'pixel_ioumax'"),
        ("pixel_ap", "pixel_ap is always computed; leave it out"),
        ("pixel_aupimo", "has a setting of its own; write aupimo=true"),
    ],
)
def test_wrong_extra_metrics(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=f"metrics: extra: .*{message}.*a test"):
        settings(extra=[name])


def test_later_settings_enter_the_identity_only_where_they_differ() -> None:
    """Cells that were stored before there were such settings are found again."""
    before = {"mode": "binned", "fpr_limit": 0.3, "aupro_200": False}
    assert cfg.identity(settings()) == before
    assert cfg.digest(cfg.identity(settings())) == "c96f7b680541"  # by c8305d8
    assert cfg.identity(settings(aupimo=True)) == {**before, "aupimo": True}
    twice = settings(extra=["pixel_ioumax", "pixel_ioumax"])
    assert cfg.identity(twice) == cfg.identity(settings(extra=["pixel_ioumax"]))
    assert cfg.identity(twice) != before
