"""What made a prediction: for records, calibration files and heat maps, which travel alone."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import __version__, registry
from zsad import config as cfg
from zsad.inference.request import category_of
from zsad.io.environment import concealed
from zsad.prompt_bank.bank import bank

if TYPE_CHECKING:
    from zsad.config.method_config import MethodConfig
    from zsad.inference.loaded_method import LoadedMethod

UNTRAINED = "untrained method in its initial state; figures mean nothing"


def words(config: MethodConfig, class_name: str) -> dict[str, str] | None:
    """Where the texts about a class come from that a method reads; None where it reads none, or
    where there are only general ones.

    ``file`` of the prompt bank and the ``entry`` in it, ``source`` by the file's own account.
    """
    if not config.prompt_kind:
        return None
    if config.own_words:
        return {"file": Path(config.own_words).name}
    entry = bank().find(config.prompt_kind, category_of(class_name))
    if entry is None:
        return None
    return {
        "file": entry.origin,
        "entry": f"{entry.dataset}/{entry.category}",
        "source": str(entry.provenance.get("source", "")),
    }


def made_by(loaded: LoadedMethod, class_name: str) -> dict[str, Any]:
    """Method, configuration, weights, class name, version and time (UTC) of a run, ready for JSON.

    ``mark``: what has to be said wherever the result is shown (random, demonstration or unknown
    weights, an untrained method, no boxes for a method of boxes), or "".  ``words``: see
    :func:`words`.  ``boxes``: where those of a detector come from, {} for a method without.
    """
    info = loaded.backbone.info
    made_for = loaded.identity(class_name)
    boxes, without = _boxes(loaded)
    marks = [info.banner, UNTRAINED if loaded.untrained else "", without]
    now = datetime.datetime.now(datetime.timezone.utc)
    told = {
        "zsad": __version__,
        "method": loaded.method.name,
        "preset": loaded.method.config.preset,
        "config": cfg.identity(loaded.method.config),
        "revision": loaded.method.revision,
        "state": made_for.get("state"),
        **loaded.method.trained_from,
        "backbone": info.name,
        "weights": info.weights_sha256,
        "weights_source": info.weights_source,
        "weights_grade": info.weights_grade,
        "weights_name": info.weights_name,
        "image_size": loaded.image_size,
        "precision": loaded.backbone.figures,
        "engine": loaded.backbone.engines.account(loaded.request.variant)
        | loaded.scorer.heads.account(),
        "class_name": made_for["class_name"],
        "words": words(loaded.method.config, class_name),
        "boxes": boxes,
        "time": now.isoformat(timespec="seconds"),
        "mark": "; ".join(m for m in marks if m),
    }
    return {key: concealed(value) for key, value in told.items()}


def _boxes(loaded: LoadedMethod) -> tuple[dict[str, Any], str]:
    """Where a detector's boxes come from, and what a method that has none of them is called."""
    if not isinstance(cfg.to_dict(loaded.method.config).get("grounding"), dict):
        return {}, ""
    found = loaded.scorer.find_boxes()
    counts = ("answered", "unanswered")  # of pictures so far
    info = {k: v for k, v in found.info.items() if k not in counts} if found else {}
    if info.get("source", "none") != "none":
        return info, ""
    entry = registry.methods().get(loaded.method.name)
    title = entry.title if entry else loaded.method.name
    return info or {"source": "none", "reason": "switched off"}, f"{title} (no boxes)"
