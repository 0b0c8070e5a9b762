"""Runs full-shot methods of anomalib on our dataset definitions, and imports their maps.

    python -m zsad.benchmarks.anomalib_maps --datasets mvtec --data-root /data --maps maps

anomalib must be installed beside zsad (``pip install anomalib``); written against its version 2.
Every category is one model, as these methods have it: trained on the normal training images of the
category, used on its test images.  Settings are anomalib's own, but for what an option says.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zsad import torchvision_compat
from zsad.config.method_config import ALL_SHOTS
from zsad.data import splits
from zsad.data.catalog import select_datasets
from zsad.data.images import read_image
from zsad.data.index import load_index
from zsad.errors import DataError, RequestError, ZsadError, counted, unknown
from zsad.exchange.imported import Import
from zsad.exchange.imported import run as import_maps
from zsad.exchange.maps import MapWriter
from zsad.types import Sample

SIDE = 256  # pixels: what anomalib resizes to by itself
BATCH = 8
Parts = dict[str, list[tuple[list[Sample], list[Sample]]]]
Detector = Callable[[Sequence[Sample], Sequence[Sample]], Iterable[tuple[float, np.ndarray]]]
EPOCHS = 200  # of Reverse Distillation, as its paper has it; the others pass over the images once


@dataclass(frozen=True)
class Model:
    """``title``: of the column.  ``name``: of anomalib's class.  ``trained``: by gradients."""

    title: str
    name: str
    backbone: str
    trained: bool = False


MODELS = {
    "padim": Model("PaDiM (anomalib)", "Padim", "resnet18"),
    "reverse-distillation": Model(
        "Reverse Distillation (anomalib)", "ReverseDistillation", "wide_resnet50_2", trained=True
    ),
    "patchcore": Model("PatchCore (anomalib)", "Patchcore", "wide_resnet50_2"),
}


@dataclass(frozen=True)
class Settings:
    """``backbone``: of timm, "" for the method's own in anomalib.  ``pretrained``: on ImageNet.
    ``normal``: at most so many training images of a category; 0: all."""

    backbone: str = ""
    pretrained: bool = True
    epochs: int = EPOCHS
    normal: int = 0
    seed: int = 0
    device: str = "auto"

    def provenance(self, model: Model, version: str) -> str:
        """What the footnote of the column says."""
        weights = "pretrained on ImageNet" if self.pretrained else "with random weights"
        images = f"at most {self.normal}" if self.normal else "all"
        epochs = f", {self.epochs} epochs" if model.trained else ""
        return (
            f"anomalib {version} {model.name}, {self.backbone or model.backbone} {weights}, "
            f"{SIDE} pixels, {images} normal training images of each category{epochs}, "
            f"seed {self.seed}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line names; exit code 2 for a request that is wrong."""
    args = _parser().parse_args(argv)
    settings = Settings(
        args.backbone, not args.random_weights, args.epochs, args.normal, args.seed, args.device
    )
    try:
        named = _named(args.methods)
        _require_anomalib()
        parts = normal_and_test(args.datasets, args.data_root, settings, args.limit)
        for name in named:
            model, target = MODELS[name], Path(args.maps) / name
            count = write_maps(target, parts, partial(detect, model, settings))
            print(f"{model.title}: {counted(count, 'map')} in {target}")
            done = import_maps(_request(model, settings, args, target))
            print(f"stored as '{done['imported']['title']}'; `zsad tables` shows it")
    except ZsadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datasets", required=True, metavar="NAME,...")
    parser.add_argument("--methods", default=",".join(MODELS), metavar="NAME,...")
    parser.add_argument("--data-root", metavar="DIR")
    parser.add_argument("--results", metavar="DIR")
    parser.add_argument("--maps", required=True, metavar="DIR", help="where maps are written")
    parser.add_argument("--backbone", default="", help="timm's name; default: the method's own")
    parser.add_argument("--random-weights", action="store_true", help="no download; a try-out")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of Reverse Distillation")
    parser.add_argument("--normal", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--limit", type=int, default=0, help="test images of a category; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or gpu")
    return parser


def _named(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in MODELS:
            raise RequestError(unknown("method of anomalib", name, MODELS))
    return names


def _require_anomalib() -> None:
    if importlib.util.find_spec("anomalib") is None:
        raise RequestError("anomalib is not installed; `pip install anomalib`")


def _request(model: Model, settings: Settings, args: argparse.Namespace, source: Path) -> Import:
    version = importlib.import_module("anomalib").__version__
    return Import(
        name=model.title,
        source=source,
        datasets=args.datasets,
        provenance=settings.provenance(model, version),
        seed=args.seed,
        limit=args.limit,
        results=args.results,
        data_root=args.data_root,
        shots=settings.normal or ALL_SHOTS,
    )


# -------------------------------------------------------------------------------- maps
def normal_and_test(
    datasets: str | Sequence[str], data_root: str | None, settings: Settings, limit: int = 0
) -> Parts:
    """By dataset, (normal training images, test images) of every category.

    Raises :class:`DataError` for a category without normal training images.
    """
    found: Parts = {}
    for name in select_datasets(datasets):
        index = load_index(name, data_root)
        for category, test in splits.evaluated(index, limit).items():
            train = splits.references(index, category, ALL_SHOTS, settings.seed)
            if 0 < settings.normal < len(train):
                train = splits.references(index, category, settings.normal, settings.seed)
            if not train:
                raise DataError(
                    f"{name}/{category}: no normal training image; full-shot methods need the "
                    "training part of the dataset"
                )
            found.setdefault(name, []).append((train, test))
    return found


def write_maps(target: Path, parts: Parts, detector: Detector) -> int:
    """Write the map and the score of every test image as `zsad results import` takes them; return
    their number.  Raises :class:`RequestError` for a folder that holds something."""
    if target.is_dir() and any(target.iterdir()):
        raise RequestError(f"--maps: {target} is not empty; give another folder")
    count = 0
    for name, categories in parts.items():
        writer = MapWriter(target / name if len(parts) > 1 else target)
        for train, test in categories:
            for sample, (score, plane) in zip(test, detector(train, test), strict=True):
                writer.add(sample.uid, score, plane)
        count += writer.close()
    return count


def detect(
    model: Model, settings: Settings, train: Sequence[Sample], test: Sequence[Sample]
) -> Iterator[tuple[float, np.ndarray]]:
    """Train one model of anomalib; yield score and map [H, W] of every test image."""
    torchvision_compat.ensure()
    lightning = importlib.import_module("lightning")
    engines = importlib.import_module("anomalib.engine")
    models = importlib.import_module("anomalib.models")
    lightning.seed_everything(settings.seed, verbose=False)
    # Scores and maps as the model makes them: what normalises them would look at test images.
    detector = getattr(models, model.name)(
        backbone=settings.backbone or model.backbone,
        pre_trained=settings.pretrained,
        post_processor=False,
        evaluator=False,
        visualizer=False,
    )
    with tempfile.TemporaryDirectory() as work:
        engine = engines.Engine(
            default_root_dir=work,
            accelerator=settings.device,
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **({"max_epochs": settings.epochs} if model.trained else {}),
        )
        engine.fit(detector, train_dataloaders=_loader(train, shuffle=True))
        batches = engine.predict(detector, dataloaders=_loader(test, shuffle=False))
    scores = np.concatenate([batch.pred_score.cpu().numpy().reshape(-1) for batch in batches])
    planes = [plane for batch in batches for plane in batch.anomaly_map.cpu().numpy()]
    for score, plane in zip(scores, planes, strict=True):
        yield float(score), plane.reshape(plane.shape[-2:])


def _loader(samples: Sequence[Sample], shuffle: bool) -> Any:
    """anomalib's batches of images that our definitions name and our readers decode.

    They are resized one by one with the transform that anomalib's models begin with, so that
    pictures of several sizes make a batch.
    """
    data = importlib.import_module("anomalib.data")
    torch = importlib.import_module("torch")
    transforms = importlib.import_module("torchvision.transforms.v2")
    resize = transforms.Resize((SIDE, SIDE), antialias=True)

    def item(sample: Sample) -> Any:
        picture = read_image(sample.image, sample.crop, sample.bits)
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
        image = resize(pixels.permute(2, 0, 1))
        return data.ImageItem(image=image, image_path=sample.uid)

    def collate(chosen: Sequence[Sample]) -> Any:
        return data.ImageBatch.collate([item(sample) for sample in chosen])

    return torch.utils.data.DataLoader(
        list(samples), batch_size=BATCH, shuffle=shuffle, collate_fn=collate
    )


if __name__ == "__main__":
    raise SystemExit(main())
