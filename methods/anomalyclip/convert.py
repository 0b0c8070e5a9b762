"""Released AnomalyCLIP checkpoints in our names."""

from __future__ import annotations

from zsad.components.released_prompts import deep_state, read_prompt_learner
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo


def import_official(state: object, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a released AnomalyCLIP checkpoint."""
    used, sets, notes = read_prompt_learner(
        state, "anomalyclip", ("ctx_pos", "ctx_neg"), backbone.text_width, "patch_meta_net."
    )
    normal, abnormal = used["ctx_pos"], used["ctx_neg"]
    if normal.ndim != 4 or normal.shape != abnormal.shape or normal.shape[:2] != (1, 1):
        raise WeightsError(
            f"anomalyclip checkpoint: ctx_pos {tuple(normal.shape)} and ctx_neg "
            f"{tuple(abnormal.shape)} must both be [1, 1, tokens, width]"
        )
    deep, deep_values = deep_state(sets)
    return ImportedCheckpoint(
        state={"normal_tokens": normal[0, 0], "abnormal_tokens": abnormal[0, 0], **deep},
        config={"preset": "released", "n_ctx": normal.shape[2], "deep": deep_values},
        report=notes,
    )
