"""Deterministic fillers for the learned parts of Bayes-PFL.

An extension of ``recipe.py`` (same rule: every tensor has its own generator, seeded from its
name).  The names in the returned dictionaries are those of the released checkpoints.  CLIP
weights, images and masks come from ``recipe.py``.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch

from tests.parity.recipe import ClipDims, randn

# --------------------------------------------------------------------------
# Bayes-PFL
# --------------------------------------------------------------------------
BAYES_ALIASES = (  # prefix in the checkpoint -> the tensors that it repeats
    ("PFL_context.encoder.", "context_encoder."),
    ("PFL_context.decoder.", "context_decoder."),
    ("PFL_normal.encoder.", "state_encoder."),
    ("PFL_normal.decoder.", "state_decoder."),
    ("PFL_abnormal.encoder.", "state_encoder."),
    ("PFL_abnormal.decoder.", "state_decoder."),
)


def recipe_bayespfl(
    dims: ClipDims,
    seed: int,
    prompt_num: int = 3,
    context_len: int = 5,
    state_len: int = 5,
    flows: int = 10,
    levels: int = 4,
    aliases: bool = False,
):
    """Learned tensors; with ``aliases`` also the repeated names, as in a released file."""
    w, e, t = dims.vision_width, dims.embed, dims.text_width
    hid = w // 2
    out: OrderedDict[str, torch.Tensor] = OrderedDict()

    def linear(name, n_out, n_in, gain=1.0, bias=0.05, shift=0.0):
        out[f"{name}.weight"] = randn(f"bpfl.{name}.w", (n_out, n_in), seed, gain * n_in**-0.5)
        out[f"{name}.bias"] = randn(f"bpfl.{name}.b", (n_out,), seed, bias, shift)

    out["prompt_context"] = randn("bpfl.context", (prompt_num, context_len, t), seed, 0.3)
    out["prompt_state_normal"] = randn("bpfl.normal", (prompt_num, state_len, t), seed, 0.3, 0.1)
    out["prompt_state_abnormal"] = randn(
        "bpfl.abnormal", (prompt_num, state_len, t), seed, 0.3, -0.1
    )
    out["temperature_pixel"] = torch.tensor(float(np.log(1 / 0.07)) - 0.3)
    out["temperature_image"] = torch.tensor(float(np.log(1 / 0.07)) + 0.2)
    for enc in ("context_encoder", "state_encoder"):
        for part, shift in (("weight_mean", 0.0), ("weight_log_variance", -4.0)):
            linear(f"{enc}.{part}.module.0", hid, e)
            linear(f"{enc}.{part}.module.2", hid, hid)
            linear(f"{enc}.{part}.module.4", e, hid, gain=0.3, shift=shift)
    for dec in ("context_decoder", "state_decoder"):  # never used by a score or a loss
        linear(f"{dec}.weight_mean.module.0", hid, e)
        linear(f"{dec}.weight_mean.module.2", hid, hid)
        linear(f"{dec}.weight_mean.module.4", e, hid)
    linear("PFL_context.p_mu.0", e, e)
    linear("PFL_context.amor_u", flows * e, e, gain=0.2)
    linear("PFL_context.amor_w", flows * e, e, gain=0.5)
    linear("PFL_context.amor_b", flows, e)
    for which in ("PFL_normal", "PFL_abnormal"):
        linear(f"{which}.p_mu.0", e, e)
        out[f"{which}.amor_u"] = randn(f"bpfl.{which}.u", (1, flows, e, 1), seed, 0.2)
        out[f"{which}.amor_w"] = randn(f"bpfl.{which}.wv", (1, flows, 1, e), seed, e**-0.5)
        out[f"{which}.amor_b"] = randn(f"bpfl.{which}.bv", (1, flows, 1, 1), seed, 0.3)
        out[f"{which}.state"] = randn(f"bpfl.{which}.state", (1, e), seed, 1.0)
    linear("fuse.fuse_modules", hid, w * levels)
    linear("fuse.compress", 1, hid, gain=2.0)
    linear("fuse.post_process", t, hid, gain=2.0)
    out["RCA.q_proj_pre.weight"] = randn("bpfl.rca.q.w", (t, t, 1), seed, 4.0)
    out["RCA.q_proj_pre.bias"] = randn("bpfl.rca.q.b", (t,), seed, 0.5)
    for i in range(levels):
        out[f"RCA.linear_proj.{i}.weight"] = randn(f"bpfl.rca.{i}", (t, w), seed, w**-0.5)
    linear("class_mapping", t, t)
    linear("image_mapping", t, t)
    if aliases:
        for new, old in BAYES_ALIASES:
            for k in [k for k in out if k.startswith(old)]:
                out[new + k[len(old) :]] = out[k]
    return out


def recipe_bayespfl_noise(dims: ClipDims, seed: int, tag: str, count: int, rows: int = 1):
    """``count`` standard normal draws of shape ``(rows, E)``, stacked: ``(count, rows, E)``.

    Tags: ``test.normal``, ``test.abnormal``, ``test.context.<image>`` (rows 1, count R), and
    ``test.context.shared``, the same draws for every image;
    ``train.<step>.context`` (rows B), ``train.<step>.normal`` and ``.abnormal`` (rows 1), count 1.
    """
    return torch.stack(
        [randn(f"bpfl.eps.{tag}.{i}", (rows, dims.embed), seed) for i in range(count)]
    )
