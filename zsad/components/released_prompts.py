"""Released ``prompt_learner`` dictionaries (AnomalyCLIP's code and what descends from it).

The repositories save ``{"prompt_learner": state}``.  Token-embedding buffers follow from the
backbone and may be present or absent; the ``compound_prompt_projections`` are never used by the
released forward pass and are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from zsad.backbones.wrappers import ignored_note, listed
from zsad.errors import WeightsError, counted

BUFFERS = tuple(
    f"{stem}_{side}"
    for stem in ("token_prefix", "token_suffix", "tokenized_prompts")
    for side in ("pos", "neg")
)
_DEEP = re.compile(r"compound_prompts_text\.(\d+)$")
_UNUSED = re.compile(r"compound_prompt_projections\.\d+\.(weight|bias)$")


def read_prompt_learner(
    state: object, method: str, required: Iterable[str], width: int, foreign: str = ""
) -> tuple[dict[str, Tensor], list[Tensor], list[str]]:
    """Return (required tensors, deep token sets in order, notes) of a released checkpoint.

    Entries that nothing here reads are ignored, and the notes say so; those that begin with
    ``foreign`` are learnt parts of another method, whose file it then is.  Raises
    :class:`WeightsError` with the missing keys, or the first tensor whose last dimension is not
    the text width.
    """
    inner = state.get("prompt_learner", state) if isinstance(state, Mapping) else None
    if not isinstance(inner, Mapping) or not all(isinstance(k, str) for k in inner):
        raise WeightsError(
            f"not a released {method} checkpoint: no dictionary 'prompt_learner' in it; "
            "give the file as its authors released it"
        )
    required = list(required)
    deep = {int(m[1]): k for k in inner if (m := _DEEP.match(k))}
    wanted = {*required, *(f"compound_prompts_text.{i}" for i in range(max(deep, default=-1) + 1))}
    unused = [k for k in inner if _UNUSED.match(k)]
    missing = sorted(wanted - set(inner))
    further = set(inner) - wanted - set(unused) - set(BUFFERS)
    if missing or (foreign and any(k.startswith(foreign) for k in further)):
        raise WeightsError(
            f"not a released {method} checkpoint; missing: {', '.join(missing) or 'none'}; "
            f"further entries: {listed(further) or 'none'}"
        )
    used = {k: inner[k] for k in wanted}
    for key, value in used.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise WeightsError(f"{method} checkpoint: '{key}' is not a float tensor")
    sets = [used[deep[i]].float() for i in sorted(deep)]
    if any(s.ndim != 2 or s.shape != sets[0].shape for s in sets):
        raise WeightsError(f"{method} checkpoint: the compound_prompts_text differ in shape")
    for key in ("ctx_pos", "ctx_neg", *(deep[i] for i in sorted(deep))):
        if used[key].shape[-1] != width:
            raise WeightsError(
                f"{method} checkpoint: '{key}' has width {used[key].shape[-1]}, the backbone's "
                f"text width is {width}; use the backbone that it was trained with (vit-l-14-336)"
            )
    notes = ignored_note(further)
    if unused:
        count = sum(inner[k].numel() for k in unused)
        notes.append(
            f"skipped {counted(len(unused), 'tensor')} of compound_prompt_projections "
            f"({counted(count, 'value')}): "
            "the released forward pass never uses them"
        )
    present = [k for k in BUFFERS if k in inner]
    if present:
        notes.append(f"skipped {len(present)} token buffers: they follow from the backbone")
    return {k: used[k].float() for k in required}, sets, notes


def deep_state(sets: list[Tensor], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the state entries of the deep token sets and the ``deep.*`` values they imply."""
    values = {"depth": len(sets) + 1}
    if sets:
        values["tokens"] = sets[0].shape[0]
    return {f"{prefix}deep_prompts.sets.{i}": s for i, s in enumerate(sets)}, values
