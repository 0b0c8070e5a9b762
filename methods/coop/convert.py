"""Released CoOp and CoCoOp checkpoints: Dassl's ``{"state_dict": {"ctx": [K, W], ...}}``.

``token_prefix`` and ``token_suffix`` follow from the classes that the file was trained with; they
are ignored when it is loaded, as its authors' code ignores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zsad.backbones.wrappers import ignored_note
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

BUFFERS = ("token_prefix", "token_suffix")
META_NET = tuple(f"meta_net.linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias"))


def import_official(
    state: Any, method: str, conditional: bool, backbone: BackboneInfo
) -> ImportedCheckpoint:
    """Translate a loaded file; the number of context words is its own.

    Raises :class:`WeightsError` for missing keys, contexts of single classes, and tensors that do
    not fit the backbone.
    """
    inner = state.get("state_dict", state) if isinstance(state, Mapping) else None
    if not isinstance(inner, Mapping):
        raise WeightsError(
            f"not a released {method} checkpoint: no dictionary 'state_dict' in it; give the file "
            f"prompt_learner/model.pth.tar-<epoch>"
        )
    given = {str(k): v for k, v in inner.items()}
    wanted = ("ctx", *META_NET) if conditional else ("ctx",)
    missing = [k for k in wanted if not isinstance(given.get(k), Tensor)]
    if missing:
        raise WeightsError(f"not a released {method} checkpoint; missing: {', '.join(missing)}")
    ctx = given["ctx"]
    if ctx.ndim != 2:
        raise WeightsError(
            f"{method} checkpoint: ctx is {tuple(ctx.shape)}, a context for each class of its own; "
            f"only one that all classes share can be used for others"
        )
    hidden, embed, width = max(1, backbone.embed // 16), backbone.embed, backbone.text_width
    shapes = dict(zip(META_NET, ((hidden, embed), (hidden,), (width, hidden), (width,))))
    for key, shape in {"ctx": (ctx.shape[0], width), **shapes}.items():
        if key in wanted and tuple(given[key].shape) != shape:
            raise WeightsError(
                f"{method} checkpoint: '{key}' is {tuple(given[key].shape)}, backbone "
                f"'{backbone.name}' needs {shape}; use the backbone that it was trained with"
            )
    report = [f"trained tensors taken: {len(wanted)}", *ignored_note(set(given) - set(wanted))]
    return ImportedCheckpoint(
        state={f"prompts.{k}": given[k].float() for k in wanted},
        config={"preset": "released", "n_ctx": ctx.shape[0], "ctx_init": ""},
        report=report,
    )
