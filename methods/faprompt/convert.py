"""Released FAPrompt checkpoints in our names."""

from __future__ import annotations

from zsad.components.released_prompts import deep_state, read_prompt_learner
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.types import BackboneInfo

PRIOR = {
    "patch_meta_net.linear1.weight": "prior_net.0.weight",
    "patch_meta_net.linear1.bias": "prior_net.0.bias",
    "patch_meta_net.linear2.weight": "prior_net.2.weight",
    "patch_meta_net.linear2.bias": "prior_net.2.bias",
}


def import_official(state: object, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a released FAPrompt checkpoint; its sizes become config values."""
    width, embed = backbone.text_width, backbone.embed
    used, sets, notes = read_prompt_learner(
        state, "faprompt", ("ctx_pos", "ctx_neg", *PRIOR), width
    )
    normal, abnormal = used["ctx_pos"], used["ctx_neg"]
    if normal.ndim != 4 or abnormal.ndim != 4 or normal.shape[:2] != (1, 1) or len(abnormal) != 1:
        raise WeightsError(
            f"faprompt checkpoint: ctx_pos {tuple(normal.shape)} must be [1, 1, tokens, width] and "
            f"ctx_neg {tuple(abnormal.shape)} [1, prompts, tokens, width]"
        )
    hidden, fan_in = used["patch_meta_net.linear1.weight"].shape
    top_k, rest = divmod(fan_in, embed)
    expected = {
        "patch_meta_net.linear1.bias": (hidden,),
        "patch_meta_net.linear2.weight": (width, hidden),
        "patch_meta_net.linear2.bias": (width,),
    }
    wrong = [k for k, shape in expected.items() if tuple(used[k].shape) != shape]
    if rest or not top_k or wrong:
        raise WeightsError(
            f"faprompt checkpoint: the prior network reads {fan_in} values and does not fit a "
            f"backbone with joint width {embed} and text width {width}; use vit-l-14-336"
        )
    deep, deep_values = deep_state(sets, "prompts.")
    return ImportedCheckpoint(
        state={
            "prompts.normal_tokens": normal[0, 0],
            "prompts.abnormal_tokens": abnormal[0],
            **{ours: used[theirs] for theirs, ours in PRIOR.items()},
            **deep,
        },
        config={
            "preset": "released",
            "cap": {
                "enabled": True,
                "n_prompts": abnormal.shape[1],
                "len": [normal.shape[2], abnormal.shape[2]],
            },
            "dap": {
                "enabled": True,
                "top_k": top_k,
                "hidden": 0 if hidden == max(1, fan_in // 16) else hidden,  # 0: that share of it
            },
            "deep": deep_values,
        },
        report=notes,
    )
