"""Frozen CLIP backbones: their registry, their weights, and the two shared encoders.

Importing this package imports neither torch nor open_clip; :func:`load` does.

=================  ================================================================================
``specs``          the registry of backbones; ``backbone_spec``: an entry of it; no torch
``locate``         finds a weight file here, and names it by its content; no torch
``known_weights``  what a weight file is, by its content; no torch
``outline``        the sizes of a backbone without its weights; no torch
``weights``        fetches and reads weights; ``reachable``: whether there is a network
``tensor_files``   reads files of tensors safely; ``torchscript`` and ``wrappers``: forms of them
``build``          open_clip's CLIP module from a model file and a state dict
``backbone``       a loaded CLIP: both encoders, what is known about it, what it did
``families``       towers other than CLIP, a file each; ``image_only``: such a backbone
``towers``         what a tower is: the interface of both encoders
``clip_vit``       the image encoder: one pass, every tap on the way
``block_plan``     which part of which block the taps need
``blocks``         a residual block, taken apart
``windows``        passes over windows of patches
``text``           the text encoder; ``text_blocks``: what it does to sequences of prompts
``prompt_tree``    prompts with a common beginning as one tree; ``tree_attention``: attention in it
``engines``        who computes an encoder: torch, oneDNN, OpenVINO
``precision``      which types there are, and what ``auto`` means
``devices``        the device, and the cores beside it; ``device_names``: which there can be
``batch_size``     an estimate to start from, smaller portions when memory runs out
``host_memory``    freed memory of the host stays with the process
``counters``       counts what the encoders did
``tiny``           the weights of ``zsad-tiny``
=================  ================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsad import names_on_demand

if TYPE_CHECKING:
    from zsad.backbones.backbone import Backbone, load, load_chosen
    from zsad.backbones.clip_vit import ImageEncoder
    from zsad.backbones.counters import Counters
    from zsad.backbones.text import PromptTokens, TextEncoder

_PUBLIC = {
    "Backbone": "zsad.backbones.backbone",
    "load": "zsad.backbones.backbone",
    "load_chosen": "zsad.backbones.backbone",
    "ImageEncoder": "zsad.backbones.clip_vit",
    "Counters": "zsad.backbones.counters",
    "PromptTokens": "zsad.backbones.text",
    "TextEncoder": "zsad.backbones.text",
}

__all__ = [
    "Backbone",
    "Counters",
    "ImageEncoder",
    "PromptTokens",
    "TextEncoder",
    "load",
    "load_chosen",
]

__getattr__ = names_on_demand(__name__, _PUBLIC)
