"""``zsad export``: record a method for a class name, compare it with itself, write one file.

Nothing leaves the command that was not compared: three pictures go through the finished package,
twice in one session, and score and map must be torch's to :data:`CLOSE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zsad import __version__, registry
from zsad.backbones.engines.verification import pictures
from zsad.data.transforms import Preprocess
from zsad.deployment import formats
from zsad.deployment.deployed import Deployed, recorded
from zsad.errors import RequestError, ZsadError
from zsad.grounding.provider import BoxProvider
from zsad.inference import calibration, provenance, references
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.request import categories_of
from zsad.io import atomic_write_bytes
from zsad.method import BoxRequest, new_method
from zsad.runtime import package_file
from zsad.runtime.boxes import CENTER, shares
from zsad.runtime.graph import RUNTIMES, open_graph
from zsad.runtime.thresholds import Thresholds

CLOSE = 1e-4  # of score and map, absolute


def export(
    method: str,
    class_name: str,
    kind: str,
    out: str | Path,
    *,
    calibrate: str | Path | None,
    reference: Sequence[str],
    overrides: Mapping[str, Any] | Sequence[str] | None,
    load: Callable[[Mapping[str, Any] | Sequence[str] | None], LoadedMethod],
) -> dict[str, Any]:
    """Write the package ``out`` and return its description; ``load`` makes the method.

    Raises :class:`RequestError` for a method that scores no picture by itself or cannot be
    recorded, and :class:`ZsadError` where the package differs from torch: then none is written.
    """
    entry = registry.method(method)
    formats.check(kind)
    _check_out(out)
    if entry.transductive:
        raise RequestError(
            f"method '{method}' cannot be exported: it compares the pictures of a call with each "
            f"other, and a package scores one picture by itself; use `zsad predict`"
        )
    near = references.found(reference)
    loaded = load(references.with_shots(method, overrides, len(near)))
    if loaded.backbone.engines.rounds:
        raise RequestError(
            f"backbone.precision={loaded.backbone.engines.precision}: a package computes in "
            f"float32; leave backbone.precision and backbone.engine out"
        )
    wanted = loaded.method.box_request([])
    if wanted is not None:
        _check_boxes(method, loaded, wanted)
    module = Deployed(loaded, class_name, near)
    program = recorded(module)
    parts = formats.converted(program, kind, module.inputs)
    manifest = description(loaded, class_name, kind, near, _title(entry, loaded))
    if module.rule is not None:
        manifest["boxes"] = asdict(module.rule)
    manifest["thresholds"] = _limits(loaded, class_name, calibrate, near)
    manifest["verified"] = compared(str(out), kind, parts, module, loaded.image_size)
    atomic_write_bytes(out, package_file.write(out, manifest, parts))
    return package_file.read(out).manifest


def _check_out(out: str | Path) -> None:
    path = Path(out)
    if path.suffix != ".zsad":
        raise RequestError(f"--out {out}: name a file that ends in .zsad")
    if path.is_dir() or not path.parent.is_dir():
        raise RequestError(f"--out {out}: is a folder, or its folder does not exist; name a file")


def _check_boxes(method: str, loaded: LoadedMethod, wanted: BoxRequest) -> None:
    """A package takes boxes that were found before it runs, and holds no detector."""
    if loaded.method.box_rule(categories_of("object", 1)[0]) is None:
        raise RequestError(
            f"method '{method}' asks a detector for boxes, and its package could not take them as "
            f"it is configured; add {method}.grounding=none, which the package then says"
        )
    if wanted.options.get("file"):
        raise RequestError(
            f"{method}.grounding={wanted.options['file']}: a package takes boxes when it runs, "
            f"`zsad run --boxes FILE`; leave the key out"
        )
    loaded.scorer.boxes = BoxProvider(wanted, info={"source": "zsad run --boxes"})


def _title(entry: registry.MethodEntry, loaded: LoadedMethod) -> str:
    """The method's title; one that asks for boxes by default may have none here."""
    usual = new_method(entry, entry.resolve(), loaded.backbone.info)
    asks = loaded.method.box_request([]) is not None
    without = usual.box_request([]) is not None and not asks
    return f"{entry.title} (no boxes)" if without else entry.title


def description(
    loaded: LoadedMethod, class_name: str, kind: str, near: Sequence[Any], title: str
) -> dict[str, Any]:
    """What a package says of itself, but for thresholds and the comparison."""
    info, method = loaded.backbone.info, loaded.method
    made_by = provenance.made_by(loaded, class_name)
    made_by.pop("engine", None)  # a package brings its own
    seen = Preprocess.for_variant(info, loaded.request.variant)
    return {
        "zsad": __version__,
        "format": kind,
        "title": title,
        "class_name": made_by["class_name"],
        "mark": made_by["mark"],
        "made_by": made_by,
        "made_for": loaded.identity(class_name),
        "preprocess": {
            "size": seen.size,
            "interpolation": seen.interpolation,
            "mean": list(seen.mean),
            "std": list(seen.std),
            "stored": seen.stored,
        },
        "reads_text": bool(loaded.scorer.text),
        "marks_pixels": method.masks,
        "tiles": loaded.framing.tiles,
        "references": references.digest(near) if near else "",
        "weights_note": licence_note(loaded),
        "outputs": {"score": "[1], higher is more anomalous", "map": "[1, S, S], likewise"},
    }


def licence_note(loaded: LoadedMethod) -> str:
    """Whose weights a package holds, and that their licence goes with them."""
    info = loaded.backbone.info
    return (
        f"This file holds weights of the backbone {info.title} ({info.weights_source}, sha256 "
        f"{info.weights_sha256 or 'unknown'}); passing it on passes them on, under their licence."
    )


def _limits(
    loaded: LoadedMethod, class_name: str, calibrate: str | Path | None, near: Sequence[Any]
) -> dict[str, Any] | None:
    """The thresholds of a calibration that was made for this very method; None: uncalibrated."""
    if calibrate is None:
        return None
    made_for = loaded.identity(class_name)
    if near:
        made_for["references"] = references.digest(near)
    found: Thresholds = calibration.load(calibrate, made_for)
    return {**vars(found)}


@torch.no_grad()
def compared(
    name: str, kind: str, parts: Mapping[str, bytes], module: Deployed, size: int
) -> dict[str, Any]:
    """The largest differences of score and map from torch, by runtime: three pictures, twice.

    Raises :class:`RequestError` without a runtime, :class:`ZsadError` where one is too far off."""
    shown = examples(module, size)
    wanted = [tuple(t.numpy() for t in module(**one)) for one in shown]
    found: dict[str, Any] = {}
    for runtime in RUNTIMES[kind]:
        try:
            session = open_graph(name, kind, parts, runtime, torch.get_num_threads(), module.inputs)
        except RequestError:
            if runtime == RUNTIMES[kind][-1] and not found:
                raise
            continue
        worst = [0.0, 0.0]
        for one, right in 2 * list(zip(shown, wanted)):
            given = {name: tensor.numpy() for name, tensor in one.items()}
            for i, (a, b) in enumerate(zip(session(given), right)):
                worst[i] = max(worst[i], float(np.abs(a - b).max()))
        if not max(worst) <= CLOSE:
            raise ZsadError(
                f"{name}: in {session.runtime} the score is {worst[0]:.1e} and the map "
                f"{worst[1]:.1e} from torch; nothing was written"
            )
        found[session.runtime] = {"score": worst[0], "map": worst[1]}
    return found


def examples(module: Deployed, size: int) -> list[dict[str, torch.Tensor]]:
    """The inputs on which a package is compared: three pictures and, where it takes boxes, all
    cells with the whole picture covered, one cell with half of it, and another with nothing."""
    found = []
    for i, image in enumerate(pictures(size).split(1)):
        one = {"image": image}
        if module.rule is not None:
            one["cells"] = torch.from_numpy(shares((None, 0, CENTER)[i]))[None]
            one["covered"] = torch.ones(1, size, size)
            one["covered"][:, :, : (0, size // 2, size)[i]] = 0
        found.append(one)
    return found
