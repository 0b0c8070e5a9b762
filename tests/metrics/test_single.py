"""Single metrics in torchmetrics' ``MetricCollection`` and in a Lightning loop."""

from __future__ import annotations

import warnings
from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from zsad.errors import RequestError
from zsad.metrics import CategoryMetrics, single_metric, spec
from zsad.metrics.base import RankingMetric
from zsad.metrics.pixel import PixelHistogram

torchmetrics = pytest.importorskip("torchmetrics")


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(4) % 2
    masks = torch.zeros(4, 230, 230, dtype=torch.bool)
    masks[1::2, 3:9, 3:9] = True
    maps = torch.rand(4, 230, 230, generator=generator) + 0.4 * masks
    scores = torch.rand(4, generator=generator) + 0.3 * labels
    return {"maps": maps, "masks": masks, "image_scores": scores, "labels": labels}


def expected(*batches: dict[str, torch.Tensor]) -> dict[str, float | None]:
    metrics = CategoryMetrics(names=list(spec.METRICS))
    for one in batches:
        metrics.update(**one)
    return metrics.compute().metrics


def collection() -> Any:
    return torchmetrics.MetricCollection({name: single_metric(name) for name in spec.METRICS})


def test_a_collection_updates_shared_states_once(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, batches = collection(), [batch(0), batch(1)]
    metrics.update(**batches[0])
    calls = []
    take = PixelHistogram._take
    monkeypatch.setattr(PixelHistogram, "_take", lambda *a: (calls.append(1), take(*a))[1])
    metrics.update(**batches[1])
    assert len(calls) == 2  # one for all pooled metrics, one for that which needs the range
    found = metrics.compute()
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected(*batches))
    metrics.reset()
    forward = metrics(**batches[0])  # the values of this batch alone
    assert {k: float(v) for k, v in forward.items()} == pytest.approx(expected(batches[0]))
    assert float(metrics.compute()["pixel_auroc"]) == pytest.approx(
        expected(batches[0])["pixel_auroc"]
    )


def test_a_metric_of_several_values_fits_into_a_collection() -> None:
    one = batch()
    metrics = torchmetrics.MetricCollection([PixelHistogram()])
    metrics.update(**one)
    wanted = expected(one)
    found = {k: float(v) for k, v in metrics.compute().items()}
    assert found == pytest.approx({name: wanted[name] for name in spec.names("pixel")})


class Evaluation(lightning.LightningModule):
    """Logs every metric by itself, as Lightning's users do."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics = torch.nn.ModuleDict({name: single_metric(name) for name in spec.METRICS})

    def test_step(self, parts: list[torch.Tensor], batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            image = name.startswith("image")
            metric.update(*(parts[2:] if image else parts[:2]))
            self.log(name, metric, on_step=False, on_epoch=True)


def test_lightning_logs_the_metrics_of_the_epoch() -> None:
    batches = [batch(0), batch(1)]
    tensors = [torch.cat([b[k] for b in batches]) for k in batches[0]]
    loader = DataLoader(TensorDataset(*tensors), batch_size=4)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    module = Evaluation()
    for _ in range(2):  # the second epoch starts afresh
        (logged,) = trainer.test(module, loader, verbose=False)
        assert logged == pytest.approx(expected(*batches))


def test_undefined_is_nan_and_the_report_says_why() -> None:
    metric = single_metric("image_auroc")
    metric.update(torch.tensor([0.5]), torch.tensor([0]))
    assert metric.compute().isnan()
    assert metric.report().undefined == {"image_auroc": "no anomalous images: all 1 are normal"}


def test_a_merged_metric_counts_as_updated() -> None:
    first, second = single_metric("image_ap"), single_metric("image_ap")
    second.update(torch.tensor([0.5, 0.7]), torch.tensor([0, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first.merge_state(second)
        assert float(first.compute()) == 1.0
    first.reset()
    assert not first.update_called


def test_wrong_names() -> None:
    with pytest.raises(RequestError, match="did you mean 'pixel_aupro'"):
        single_metric("pixel_auprp")
    with pytest.raises(ValueError, match="one name, not 3"):
        RankingMetric.__init__(PixelHistogram(), names=("a", "b", "c"), single=True)
