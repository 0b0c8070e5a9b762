"""Which file holds a detector's weights, and where BERT's vocabulary lies.  No torch.

``grounding.weights`` is written like ``METHOD.checkpoint`` (:mod:`zsad.checkpoints.sources`), or
is one of two words: ``stock``, the published weights in a local cache; ``random``.  Of a folder
with several files, the one counts that its authors released for the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zsad.backbones.locate import cache_folders, find_named
from zsad.checkpoints import sources
from zsad.checkpoints.released import recognise
from zsad.errors import RequestError, WeightsError, ZsadError
from zsad.grounding.interface import DEFAULT
from zsad.io.digests import remembered_sha256
from zsad.io.names import at_home

OPTION = "grounding.weights"
WORDS = ("stock", "random")
PACKAGES = {DEFAULT: DEFAULT, "groundingdino": "groundingdino"}  # of the built-in detectors
STOCK = {"swin_t": "groundingdino_swint_ogc.pth", "swin_b": "groundingdino_swinb_cogcoor.pth"}
STOCK_HUB = "ShilongLiu/GroundingDINO"
RELEASED_AS = "groundingdino"  # in the table of released files
BERT_HUB = ("bert-base-uncased", "google-bert/bert-base-uncased")
SAVED = ("config.json", "model.safetensors")  # of a model that transformers saved


def choose(weights: Any, target: str, *, offline: bool = False) -> str:
    """The one file (or folder of a saved model) that ``grounding.weights`` names for a target.

    ``target``: the dataset whose pictures are looked at, "" for pictures of none.
    Raises :class:`RequestError` and :class:`WeightsError` as :func:`zsad.checkpoints.sources.parse`
    does, and for a folder of several files.
    """
    if isinstance(weights, Mapping) and not target and sources.EVERY not in weights:
        raise RequestError(
            f"{OPTION}: has files by dataset, and these pictures belong to none; give one FILE, or "
            f"add `{sources.EVERY}: FILE`"
        )
    place = sources.parse(weights, OPTION, words=WORDS, offline=offline).of(target)
    if place.path is None:
        return place.text
    if not place.path.is_dir() or is_saved(place.path):
        return str(place.path)
    found = place.files()
    known = [(p, r) for p in found if (r := recognise(p)) and r.method == RELEASED_AS]
    serving = [p for p, r in known if r.trained_on and r.serves_target(target)]
    if len(found) == 1 or len(serving) == 1:
        return str((serving or found)[0])
    names = ", ".join(p.name for p in found[:5]) + (", ..." if len(found) > 5 else "")
    raise RequestError(
        f"{OPTION}={place.text}: which of its {len(found)} files is the detector for "
        f"{target or 'these pictures'}? ({names}); give one FILE, or {{TARGET: FILE, ...}}"
    )


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a model as transformers saves one."""
    return all((folder / name).is_file() for name in SAVED)


def locate(weights: str) -> Path | None:
    """The file or folder of one choice, None for ``random``.  Raises :class:`WeightsError`."""
    if weights == "random":
        return None
    if weights != "stock":
        path = at_home(weights)
        if not path.exists():
            raise WeightsError(f"{OPTION}={weights}: no such file")
        return path
    if found := find_named(STOCK.values(), STOCK_HUB, STOCK.values()):
        return found
    raise WeightsError(
        f"no Grounding DINO weights here: put {STOCK['swin_t']} (its authors publish it) into "
        f"{cache_folders()[0]}, or set {OPTION}=FILE, grounding=FILE.json or grounding=none"
    )


def identity(options: Mapping[str, Any], target: str, *, offline: bool = False) -> str:
    """What names the answers of the default detector to ``grounding.*`` options, beside these.

    "" where boxes come from elsewhere or from nowhere: then the options say it all.
    """
    if options.get("detector", DEFAULT) != DEFAULT:
        return ""
    found = here(options, target, offline=offline)
    return f"{DEFAULT}/{found}" if found else ""


def here(options: Mapping[str, Any], target: str, *, offline: bool = False) -> str:
    """The digest of the weights that a built-in detector would read; "" where it cannot be had,
    and where boxes come from elsewhere or from nowhere."""
    package = PACKAGES.get(options.get("detector", DEFAULT))
    if package is None or options.get("file") or options.get("enabled") is False:
        return ""
    if find_spec(package) is None:
        return ""
    try:
        path = locate(choose(options.get("weights", "stock"), target, offline=offline))
        if path is None or path.is_file():
            text_encoder(options.get("text_encoder"))
    except ZsadError:
        return ""
    return digest(path)


def outdated(
    options: Mapping[str, Any], target: str, boxes: Mapping[str, Any], *, offline: bool = False
) -> bool:
    """Whether a detector that is there now answers otherwise than in a record, whose ``boxes``
    (its account of them) came from other weights, or from nowhere because there were none; of boxes
    in a file, whether it holds something else by now.

    Never for the default detector, whose weights name the record (:func:`identity`).
    """
    if options.get("file") and options.get("enabled") is not False:
        path, known = Path(str(options["file"])), boxes.get("sha256")
        return known is not None and path.is_file() and remembered_sha256(path) != known
    if options.get("detector", DEFAULT) == DEFAULT:
        return False
    known = boxes.get("weights_sha256") if boxes.get("source") == "detector" else ""
    found = here(options, target, offline=offline)
    return bool(found) and known is not None and known != found


def digest(path: Path | None) -> str:
    """The SHA-256 of the weights; "random" for none."""
    if path is None:
        return "random"
    return remembered_sha256(path / SAVED[1] if path.is_dir() else path)


def text_encoder(option: str | None) -> Path:
    """Find BERT's vocabulary and configuration.  Raises :class:`WeightsError`.

    Order: the option; ``bert-base-uncased`` in zsad's weight folders; the hub's local cache.
    """
    if option is not None:
        folder = at_home(option)
        if not (folder / "config.json").is_file():
            raise WeightsError(
                f"grounding.text_encoder={option}: no folder with config.json and vocab.txt of "
                f"a BERT model"
            )
        return folder
    folders = cache_folders()
    for folder in folders:
        if (folder / "bert-base-uncased" / "config.json").is_file():
            return folder / "bert-base-uncased"
    from huggingface_hub import try_to_load_from_cache

    for repository in BERT_HUB:
        hit = try_to_load_from_cache(repository, "config.json")
        if isinstance(hit, str):
            return Path(hit).parent
    raise WeightsError(
        "Grounding DINO needs BERT's vocabulary: set grounding.text_encoder to a folder with "
        f"bert-base-uncased's config.json and vocab.txt, or put it into {folders[0]}"
    )
