"""The Python surface: ``zsad.bench``, ``zsad.train``, ``zsad.predict``, ``zsad.load_method``, ...

Signatures and what they promise; the work is done where the last line of each says.  The
parameters of :func:`bench` and :func:`train` are the fields of
:class:`zsad.runner.options.BenchOptions` and :class:`~zsad.runner.options.TrainOptions`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from zsad.errors import nearest
from zsad.runner.options import BenchOptions, TrainOptions, takes

if TYPE_CHECKING:
    from zsad.inference.loaded_method import LoadedMethod
    from zsad.inference.prediction import Prediction

P = ParamSpec("P")


@takes(BenchOptions)
def bench(options: BenchOptions) -> dict[str, Any]:
    """Run a sweep and return its document: cells, summary, failures, counters.

    Cells that the results folder holds already are not computed again (``fresh`` ignores
    them).  ``launcher="ray"`` spreads them over a Ray cluster, that of ``ray_address`` or one of
    its own.  Raises :class:`zsad.errors.ZsadError` when the request is wrong: nothing was run
    then.  A cell that fails is listed under ``failed``, and the others are stored.
    """
    from zsad.runner.launch import bench as run

    return run(options)


@takes(TrainOptions)
def train(options: TrainOptions) -> dict[str, Any]:
    """Train methods on the labelled part of a dataset and return where the checkpoints lie.

    They lie in the results folder under a name that hashes everything they depend on:
    :func:`bench` finds them there.  ``devices`` and ``strategy`` are Lightning's.
    Raises :class:`zsad.errors.ZsadError` when the request is wrong.
    """
    from zsad.runner.training import train as run

    return run(options)


def load_method(
    name: str,
    backbone: str = "vit-l-14-336",
    weights: str | Path | None = None,
    image_size: int | None = None,
    checkpoint: str | Path | None = None,
    preset: str | None = None,
    device: str = "auto",
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    *,
    precision: str = "auto",
    engine: str = "auto",
    offline: bool = False,
    untrained: bool = False,
    seed: int = 0,
    activation: str = "auto",
    tiles: int | str | None = None,
    keep_aspect: bool = False,
) -> LoadedMethod:
    """Load one method on one backbone.

    ``checkpoint``: a trained state (FILE, FOLDER, ``hf://OWNER/REPO@REVISION``,
    ``local-dir:PATH``), ours or an official one as released (which forces
    ``preset="released"`` unless another is given; sizes that it implies win over the config).
    ``backbone="file"`` with ``weights=FILE`` builds the architecture that a CLIP state dict in
    OpenAI's naming implies; ``activation="gelu"`` where its weights were trained with that one and
    not with QuickGELU (a LAION model, say).  ``overrides``: config keys of the method, nested or
    dotted; and ``backbone.*``, ``run.batch_size`` as for :func:`bench`.  ``engine``: who runs the
    image encoder on a CPU, ``auto``, ``torch``, ``onednn`` or ``openvino``.
    ``tiles``: also look at a picture in so many tiles along its longer side, ``"auto"``: in tiles
    of the model's input size.  ``keep_aspect``: do not squeeze pictures into a square.  For both
    see :mod:`zsad.inference.tiles`.
    A trained method without a checkpoint raises :class:`WeightsError` unless ``untrained``.
    """
    from zsad.inference.loading import load_method as run
    from zsad.inference.options import LoadOptions

    options = LoadOptions(
        name=name,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        checkpoint=checkpoint,
        preset=preset,
        device=device,
        overrides=overrides,
        precision=precision,
        engine=engine,
        offline=offline,
        untrained=untrained,
        seed=seed,
        activation=activation,
        tiles=tiles,
        keep_aspect=keep_aspect,
    )
    return run(options)


def predict_iter(
    method: str,
    pictures: str | Path | Sequence[str | Path],
    class_name: str,
    *,
    calibrate: str | Path | Sequence[str | Path] | None = None,
    false_alarms: float | None = None,
    out: str | Path | None = None,
    threshold: float | None = None,
    image_threshold: float | None = None,
    scale: tuple[float, float] | None = None,
    ignore: str | Path | None = None,
    save: str | Sequence[str] | None = None,
    to: str | Sequence[str] | None = None,
    references: str | Path | Sequence[str | Path] = (),
    explanations: int = 5,
    listed: Sequence[str] = (),
    plugins: str | Path | None = None,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    bank: str | Path | None = None,
    save_bank: str | Path | None = None,
    one_file: bool = False,
    kind: str | None = None,
    domain: str | None = None,
    **loading: Any,
) -> Iterator[Prediction]:
    """Score pictures that have no labels, one after the other: for more than fit in memory.

    The next one is scored, and its files are written, when it is asked for.

    ``pictures``: files, folders, wildcards (one, or several); ``listed``: further ones of a list.
    ``calibrate``: a few normal pictures, or the ``calibration.json`` that an earlier run left in
    its ``out``; ``false_alarms``: the largest share of them that may be called anomalous (0.05).
    ``references``: normal pictures of the same thing, as files, folders or wildcards, for a method
    that compares with them; their number sets its shots, unless ``overrides`` do.  ``save_bank``
    keeps what it remembers of them in a file, which ``bank`` takes in their place; a method that
    compares pictures with each other keeps ``pictures``, and compares with them, too, later.
    ``threshold`` and ``image_threshold`` set the thresholds by hand.  ``ignore``: what is not
    looked at, a rectangle ``"x,y,w,h"`` in pixels, a mask file or a folder of masks.  With ``out``
    files about every picture are written there, of the kinds of :mod:`zsad.inference.outputs` that
    ``save`` names; with ``one_file`` its page holds everything that it shows, and ``to`` (``coco``,
    ``csv``, ``parquet``) adds files of :mod:`zsad.inference.handover` for other programs.
    ``kind`` (``object`` or ``texture``) and ``domain`` (``industrial`` or ``medical``) of what the
    pictures show, for methods whose prompts depend on them.
    ``loading``: further keywords of :func:`load_method`.  What a prediction
    holds: :class:`zsad.inference.prediction.Prediction`;
    that of a picture that cannot be read or scored has an ``error``, and the others go on.
    Raises :class:`zsad.errors.ZsadError` when the request is wrong: nothing was scored then.
    """
    from zsad.inference.options import PredictOptions
    from zsad.inference.run import predict as run

    _check_loading(predict_iter, loading, "predict")
    options = PredictOptions(
        method=method,
        pictures=pictures,
        class_name=class_name,
        calibrate=calibrate,
        false_alarms=false_alarms,
        out=out,
        threshold=threshold,
        image_threshold=image_threshold,
        scale=scale,
        ignore=ignore,
        save=save,
        to=to,
        references=references,
        explanations=explanations,
        listed=listed,
        plugins=plugins,
        overrides=overrides,
        bank=bank,
        save_bank=save_bank,
        one_file=one_file,
        kind=kind,
        domain=domain,
    )
    return run(options, lambda values: load_method(method, overrides=values, **loading))


def _at_once(each: Callable[P, Iterator[Prediction]]) -> Callable[P, list[Prediction]]:
    """A function that takes what ``each`` takes and returns all of its predictions."""

    @functools.wraps(each)
    def predict(*args: P.args, **keywords: P.kwargs) -> list[Prediction]:
        return list(each(*args, **keywords))

    del predict.__wrapped__  # whose signature returns an iterator
    signature = inspect.signature(each)
    predict.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation="list[Prediction]"
    )
    predict.__annotations__ = {**each.__annotations__, "return": "list[Prediction]"}
    predict.__name__ = predict.__qualname__ = "predict"
    predict.__doc__ = (
        "Score pictures that have no labels, write their files, and return all predictions.\n\n"
        "    The parameters, and the errors, are those of :func:`predict_iter`."
    )
    return predict


predict = _at_once(predict_iter)
"""Score pictures, write their files, and return all predictions of ``predict_iter`` in a list."""


def export(
    method: str,
    class_name: str,
    out: str | Path,
    *,
    format: str = "onnx",
    calibrate: str | Path | None = None,
    references: Sequence[str] = (),
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    **loading: Any,
) -> dict[str, Any]:
    """Write a method for one class name as one file, and return what the file says of itself.

    ``format``: ``onnx`` or ``openvino``; :mod:`zsad.runtime` scores pictures by it without torch.
    ``calibrate``: a ``calibration.json`` of the same method.  ``references``: normal pictures of a
    few-shot method, which go into the file.  ``loading``: as for :func:`load_method`.
    Raises :class:`RequestError` for a method that scores no picture by itself.
    """
    from zsad.deployment.write import export as run

    _check_loading(export, loading)
    return run(
        method,
        class_name,
        format,
        out,
        calibrate=calibrate,
        reference=references,
        overrides=overrides,
        load=lambda words: load_method(method, overrides=words, **{**loading, "device": "cpu"}),
    )


def _check_loading(
    function: Callable[..., Any], loading: Mapping[str, Any], name: str = ""
) -> None:
    """Raise ``TypeError`` for a keyword that neither ``function`` nor :func:`load_method` has."""
    known = inspect.signature(load_method).parameters
    if unknown := sorted(loading.keys() - known):
        hint = nearest(unknown[0], {**inspect.signature(function).parameters, **known})
        raise TypeError(
            f"{name or function.__name__}() got an unexpected keyword argument '{unknown[0]}'{hint}"
        )
