"""Official checkpoints of FiLo: ``{"filo": state of the whole module}``, commit 36ff29c.

Only the trained parts are taken.  The file also carries the frozen CLIP (partly under names of
its rebuilt attention), a second copy of the text tower, and sometimes token buffers; all of
these come from the backbone here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zsad.backbones.wrappers import ignored_note
from zsad.errors import WeightsError
from zsad.method import ImportedCheckpoint
from zsad.methods.filo.config import Config
from zsad.types import BackboneInfo

FROZEN = ("clip_model.", "text_encoder.")
BUFFERS = re.compile(r"token_prefix|token_suffix|tokenized_prompts")
RENAMES: tuple[tuple[str, str], ...] = (
    (r"normal_prompt_learner\.(.+)", r"normal_prompts.\1"),
    (r"abnormal_prompt_learner\.(.+)", r"abnormal_prompts.\1"),
    (r"decoder_linear\.fc\.(\d+)\.(weight|bias)", r"qkv.\1.fc.\2"),
    (r"decoder_cov\.fc_(\d)(\d)\.(\d+)\.(weight|bias)", r"vv.\3.kernels.\1x\2.\4"),
    (r"adapter\.fc\.(.+)", r"adapter.fc.\1"),
)


def translate(name: str) -> str | None:
    """Our name of an official trained tensor, or None."""
    for pattern, ours in RENAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, ours, name)
    return None


def import_official(state: object, config: Config, backbone: BackboneInfo) -> ImportedCheckpoint:
    """Translate a loaded official file.  Raises :class:`WeightsError` that names the keys."""
    if isinstance(state, Mapping) and "filo" in state:
        state = state["filo"]
    if not isinstance(state, Mapping) or not any(translate(str(k)) for k in state):
        raise WeightsError(
            "not an official FiLo checkpoint: expected {'filo': {...}} with decoder_cov, "
            "decoder_linear, prompt learners and adapter; Grounding DINO files go to "
            "filo.grounding.weights"
        )
    frozen = [k for k in state if k.startswith(FROZEN) or BUFFERS.search(k)]
    names = {k: translate(k) for k in state if k not in set(frozen)}
    further = [str(k) for k, ours in names.items() if ours is None]
    translated: dict[str, Tensor] = {ours: state[k] for k, ours in names.items() if ours}
    implied, dropped = _implied(translated, config)
    for name in dropped:
        del translated[name]
    missing = _missing(translated, config)
    if missing:
        raise WeightsError(f"official FiLo checkpoint: missing {', '.join(missing)}")
    _check_sizes(translated, backbone)
    report = [
        f"trained tensors taken: {len(translated)}",
        f"backbone and token entries ignored (the backbone provides them): {len(frozen)}",
        *ignored_note(further),
    ]
    if dropped:
        report.append(f"adapter entries ignored (adapter.kind=none): {len(dropped)}")
    return ImportedCheckpoint(translated, implied, report)


def _implied(state: Mapping[str, Tensor], config: Config) -> tuple[dict[str, Any], list[str]]:
    """Config values that the tensors fix, and names that the config makes superfluous."""
    kernels = sorted(
        {m.group(1) for k in state if (m := re.match(r"vv\.\d+\.kernels\.(\w+)\.", k))}
    )
    ordered = [k for k in config.mmci.kernels if k in kernels]
    ordered += [k for k in kernels if k not in ordered]
    implied: dict[str, Any] = {
        "preset": "released",
        "mmci": {"kernels": ordered},
        "branches": {"qkv": "linear", "vv": "mmci"},
    }
    context = state.get("normal_prompts.ctx")
    if context is not None:
        conditional = any(".meta_net." in k for k in state)
        learner = "cocoop" if conditional else "coop"
        implied["prompt"] = {"n_ctx": int(context.shape[0]), "learner": learner}
    adapter = [k for k in state if k.startswith("adapter.")]
    if config.adapter.kind == "none":
        return implied, adapter
    implied["adapter"] = {
        "kind": "bottleneck" if "adapter.fc.2.weight" in state else "linear",
        "bias": any(k.endswith("bias") for k in adapter),
    }
    return implied, []


def _missing(state: Mapping[str, Tensor], config: Config) -> list[str]:
    wanted = ["normal_prompts.ctx", "abnormal_prompts.ctx", "qkv.0.fc.weight"]
    wanted += ["vv.0.kernels.1x1.weight"]
    if config.adapter.kind != "none":
        wanted.append("adapter.fc.0.weight")
    return [name for name in wanted if name not in state]


def _check_sizes(state: Mapping[str, Tensor], backbone: BackboneInfo) -> None:
    embed, width = state["qkv.0.fc.weight"].shape
    if (embed, width) != (backbone.embed, backbone.width):
        raise WeightsError(
            f"official FiLo checkpoint: its layers map width {width} to {embed}, but backbone "
            f"'{backbone.name}' has width {backbone.width} and joint width {backbone.embed}; "
            f"load it with the backbone that it was trained on"
        )
