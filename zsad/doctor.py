"""Examines an installation: what is there, what works, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from zsad import __version__, registry
from zsad.errors import ZsadError, categories, counted

PACKAGES = (
    *("torch", "torchvision", "open_clip_torch", "lightning", "torchmetrics", "omegaconf"),
    *("numpy", "scipy", "scikit-image", "pandas", "pyarrow", "pillow", "tifffile", "imagecodecs"),
)
OPTIONAL = {
    **{"elpv-dataset": "elpv", "transformers": "grounding", "groundingdino-py": "groundingdino"},
    **{"ray": "ray", "openvino": "cpu", "onnxruntime": "cpu"},
    **{"onnx": "export", "onnxscript": "export", "pycocotools": "coco"},
    **{"matplotlib": "plot", "fastapi": "app", "pillow-heif": "heic"},
}
TOLERANCE = 1e-9  # exact mode against the slow definitions


State = Literal["ok", "absent", "differs", "broken"]


class Diagnosis(NamedTuple):
    """``state``: ok, absent (optional, not there), differs (usable, but its figures are not the
    papers') or broken (needs a repair)."""

    area: str
    name: str
    state: State
    text: str


def examine(data_root: str | None = None, results: str | None = None) -> list[Diagnosis]:
    """All findings, in the order in which one repairs things."""
    areas: dict[str, Callable[[], Iterator[Diagnosis]]] = {
        "version": versions,
        "device": devices,
        "metric": metrics,
        "method": methods,
        "weights": weights,
        "detector": detector,
        "cache": caches,
        "dataset": lambda: datasets(data_root),
        "storage": lambda: storage(results),
    }
    found: list[Diagnosis] = []
    for name, area in areas.items():
        try:
            found.extend(area())
        except Exception as error:  # a broken installation fails in any way; go on examining
            found.append(Diagnosis(name, "check", "broken", f"{type(error).__name__}: {error}"))
    return found


def versions() -> Iterator[Diagnosis]:
    """Python and the packages that zsad builds on."""
    yield Diagnosis("version", "zsad", "ok", f"{__version__}, Python {platform.python_version()}")
    for name in PACKAGES:
        found = _version(name)
        hint = found or "not installed; run `make setup` or `pip install zsad`"
        yield Diagnosis("version", name, "ok" if found else "broken", hint)
    for name, extra in OPTIONAL.items():
        found = _version(name)
        hint = found or f"not installed; `pip install zsad[{extra}]` adds it"
        yield Diagnosis("version", name, "ok" if found else "absent", hint)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices() -> Iterator[Diagnosis]:
    """Processors, and whether torchvision's operators fit this torch."""
    import torch

    from zsad.torchvision_compat import ensure

    yield Diagnosis(
        "device", "cpu", "ok", f"{platform.machine()}, {counted(torch.get_num_threads(), 'thread')}"
    )
    yield from engines()
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            room = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
            yield Diagnosis("device", f"cuda:{i}", "ok", f"{torch.cuda.get_device_name(i)}, {room}")
    else:
        yield Diagnosis(
            "device", "cuda", "absent", "no CUDA device, or torch was built without CUDA"
        )
    try:
        replaced = ensure()
        import torchvision
    except Exception as error:  # whatever an import of compiled parts raises
        yield Diagnosis("device", "torchvision", "broken", f"cannot be imported ({error})")
    else:
        how = f"in plain PyTorch: {', '.join(replaced)}" if replaced else "compiled"
        yield Diagnosis(
            "device", "torchvision", "ok", f"{torchvision.__version__}, operators {how}"
        )


def engines() -> Iterator[Diagnosis]:
    """What can run an encoder on this processor besides torch."""
    from zsad.backbones.engines import packed, processor

    facts = processor.facts()
    able = [word for word, can in (("bf16", facts.bf16), ("int8", facts.vnni)) if can]
    said = f"{processor.name()}; multiplies in {' and '.join(able) or 'no lower precision'}"
    if facts.slow_bf16:
        said += "; bf16 is slower than fp32 there, without AMX"
    yield Diagnosis("device", "processor", "ok", said)
    if facts.openvino:
        text = f"{facts.openvino}; encoders run on it where there are pictures enough"
        yield Diagnosis("device", "engine openvino", "ok", text)
    else:
        hint = "not installed; `pip install zsad[cpu]` adds it"
        yield Diagnosis("device", "engine openvino", "absent", hint)
    if packed.works():
        slow = "twice as fast" if facts.slow_linear else "about as fast"
        yield Diagnosis("device", "engine onednn", "ok", f"linear layers {slow} as torch's own")
    else:
        yield Diagnosis("device", "engine onednn", "absent", "not in this build of torch")


def metrics() -> Iterator[Diagnosis]:
    """The metrics against their slow definitions, on generated maps with ties and regions."""
    import numpy as np

    from zsad.metrics import spec
    from zsad.metrics.evaluate import evaluate

    random = np.random.default_rng(0)
    masks = np.zeros((6, 24, 24), dtype=bool)
    masks[3:, 4:9, 5:12] = True
    masks[4:, 15:18, 2:20] = True
    maps = np.round(random.random(masks.shape) + 0.4 * masks, 2)
    labels = masks.any(axis=(1, 2)).astype(int)
    scores = np.array([0.2, 0.5, 0.6, 0.5, 0.3, 0.9])
    # Low false-positive rates need many normal pixels and few ties.
    wide = np.kron(masks, np.ones((9, 9), dtype=bool))
    fine = random.random(wide.shape) ** 0.01 + 0.02 * wide
    small, large = evaluate(maps, masks, scores, labels), evaluate(fine, wide, scores, labels)
    for entry in spec.METRICS.values():
        if entry.name not in small:
            continue
        slow = spec.resolve(entry.reference)
        if entry.level == "image":
            got, value = small[entry.name], slow(scores, labels)
        elif entry.states:
            got, value = large[entry.name], slow(fine, wide)
        else:
            got, value = small[entry.name], slow(maps, masks.astype(int))
        fits = None not in (got, value) and abs(got - value) <= TOLERANCE
        state: State = "ok" if fits else "broken"
        yield Diagnosis("metric", entry.name, state, f"{got} against {value}")


def methods() -> Iterator[Diagnosis]:
    """Every registered method: its config and its class; and plug-ins that are left out."""
    for text in registry.broken_plugins().values():
        yield Diagnosis("method", "plug-in", "broken", text)
    for entry in registry.methods().values():
        try:
            entry.resolve()
            entry.load()
        except ZsadError as error:
            yield Diagnosis("method", entry.name, "broken", str(error))
        else:
            yield Diagnosis("method", entry.name, "ok", entry.summary)


def weights() -> Iterator[Diagnosis]:
    """Which backbones can be loaded without a network."""
    from zsad.backbones.known_weights import banner
    from zsad.backbones.locate import default_folder, locate
    from zsad.backbones.specs import specs

    for spec in specs().values():
        try:
            if not spec.family and spec.model_config() is None:
                continue  # "file" is what its weight file says
            found = locate(spec, None)
        except ZsadError as error:
            state: State = "broken" if spec.bundled else "absent"
            yield Diagnosis("weights", spec.name, state, str(error))
            continue
        if found is None:
            hint = f"not here; fetched on first use, or put {spec.weights_file or 'a file'} into "
            yield Diagnosis("weights", spec.name, "absent", hint + str(default_folder()))
        else:
            said = banner(found.origin, False, found.source, found.sha256)
            named = f"{found.source} ({found.origin.name})" if found.origin.name else found.source
            yield Diagnosis("weights", spec.name, "differs" if said else "ok", said or named)


def detector() -> Iterator[Diagnosis]:
    """Whether the detector of the methods with boxes can be loaded without a network."""
    from zsad.grounding.weight_files import locate

    try:
        path = locate("stock")
    except ZsadError as error:
        yield Diagnosis("weights", "grounding-dino", "absent", str(error))
    else:
        yield Diagnosis("weights", "grounding-dino", "ok", str(path))


def caches() -> Iterator[Diagnosis]:
    """Folders that zsad keeps things in, and the prompts that it reads."""
    from zsad.backbones.locate import cache_folders
    from zsad.grounding.cache import default_folder as boxes
    from zsad.prompt_bank.answers import AnswerStore, answers_root
    from zsad.prompt_bank.bank import bank
    from zsad.prompt_bank.kinds import kinds

    for folder in cache_folders():
        yield _folder("weights", folder, written=False)
    yield _folder("boxes", boxes())
    answers = AnswerStore(answers_root())
    yield _folder("answers", answers.folder)
    for path in answers.broken():
        yield Diagnosis("cache", path.name, "broken", f"{path}: not a whole answer; delete it")
    for kind in kinds():
        try:
            count = len(bank().entries(kind))
        except ZsadError as error:
            yield Diagnosis("cache", f"prompts {kind}", "broken", str(error))
        else:
            yield Diagnosis("cache", f"prompts {kind}", "ok", f"of {categories(count)}")


def _folder(name: str, folder: Path, written: bool = True) -> Diagnosis:
    """How much lies in a folder, and (where zsad writes) whether more can be put there."""
    if not folder.is_dir():
        return Diagnosis("cache", name, "ok", f"{folder}, made when it is needed")
    files = [p for p in folder.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files) / 2**20
    text = f"{folder}, {counted(len(files), 'file')}, {size:.1f} MiB"
    if not written or os.access(folder, os.W_OK):
        return Diagnosis("cache", name, "ok", text)
    return Diagnosis("cache", name, "broken", f"{text}, cannot be written")


def datasets(data_root: str | None) -> Iterator[Diagnosis]:
    """Which datasets are found, and whether their counts are the published ones."""
    from zsad.data.check import check
    from zsad.data.index import load_index
    from zsad.runner.request import data_root as chosen

    root = chosen(data_root)
    for name in registry.list_datasets():
        try:
            problems = load_index(name, root, strict=False).problems
            report = check(name, root, open_files=False)
        except ZsadError as error:
            yield Diagnosis("dataset", name, "absent", str(error))
            continue
        normal, anomalous = report.total
        text = f"{normal} normal and {counted(anomalous, 'anomalous test image')}"
        text += f", variant {report.variant}"
        wrong = [*problems, *(f.text for f in report.findings if f.severity == "error")]
        if wrong:
            state: State = "broken" if problems else "differs"
            more = f"; `zsad data check {name}` lists everything"
            yield Diagnosis("dataset", name, state, f"{text}: {wrong[0]}{more}")
        else:
            yield Diagnosis("dataset", name, "ok", text)


def storage(results: str | None) -> Iterator[Diagnosis]:
    """Free disk where results go, free memory, broken records."""
    from zsad.results.store import ResultStore
    from zsad.runner.request import results_dir

    folder = results_dir(results)
    place = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free / 2**30
    writable = os.access(place, os.W_OK)
    text = f"{folder}, {free:.1f} GiB free" + ("" if writable else ", not writable")
    yield Diagnosis("storage", "results", "ok" if writable and free > 1 else "broken", text)
    for path in ResultStore(folder).broken():
        yield Diagnosis("storage", path.name, "broken", f"{path}: not a whole record; run it again")
    if (memory := _free_memory()) is not None:
        yield Diagnosis("storage", "memory", "ok", f"{memory:.1f} GiB free")


def _free_memory() -> float | None:
    """Free memory in GiB, where the system tells."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return float(lines["MemAvailable"].split()[0]) / 2**20
