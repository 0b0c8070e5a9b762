"""The local side of ALFA: windows against aligned text (Eq. 11), spread to a map."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from zsad.backbones.windows import window_indices
from zsad.components.windows import join, spread
from zsad.methods.alfa.aligner import align
from zsad.methods.alfa.config import Config
from zsad.on_device import constant
from zsad.types import ImageFeatures, ScoreContext, Tap

CHUNK = 1 << 24  # numbers in the largest tensor of one chunk of windows


def anomaly_probability(
    cosine: Tensor, weight: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """Eq. 10-11: the anomalous share of the weighted exponentials.  [*, T] -> [*] in [0, 1].

    With one embedding per label and weight 1 this is the softmax over the labels.
    """
    logits = cosine / temperature + weight.log()
    # Where shapes must not depend on values: in a recording, and on a device, which would be waited
    # for to learn them.
    if torch.compiler.is_compiling() or cosine.device.type != "cpu":
        sides = [logits.masked_fill(labels != label, -torch.inf) for label in (0, 1)]
    else:
        sides = [logits[..., labels == label] for label in (0, 1)]
    normal, abnormal = (side.logsumexp(-1) for side in sides)
    return torch.sigmoid(abnormal - normal)


class LocalScorer:
    """Anomaly maps from window embeddings, with or without the aligner."""

    def __init__(self, config: Config, depth: int) -> None:
        self.config = config
        self._inverses = WeakIdKeyDictionary()
        path = {"proj": "values_proj", "full_block": "values_block"}[config.aligner.value_path]
        if config.aligner.space == "width":
            path = "values_norm"
        self.values = Tap(path, depth)

    def window_tap(self, k: int) -> Tap:
        """Class embeddings of the k x k windows."""
        pixels = self.config.window_input == "zero_pixels"
        return Tap("window_pixels" if pixels else "window", k)

    def values_tap(self, k: int) -> Tap:
        """Value tokens inside every k x k window, of the kind of :attr:`values`."""
        kinds = {
            "values_proj": "window_values",
            "values_block": "window_values_block",
            "values_norm": "window_values_norm",
        }
        return Tap(kinds[self.values.kind], k)

    def taps(self) -> list[Tap]:
        """Everything that :meth:`map` reads."""
        taps = [self.window_tap(k) for k in self.config.scales]
        if self.config.aligner.enabled:
            taps += [self.values, *(self.values_tap(k) for k in self.config.scales)]
        return taps

    def map(
        self,
        features: ImageFeatures,
        text: Tensor,
        weight: Tensor,
        labels: Tensor,
        s_global: Tensor,
        context: ScoreContext[Any],
    ) -> Tensor:
        """Return the multi-scale anomaly map [B, h, w] in [0, 1].

        ``text`` [B, T, E] unit rows, ``weight`` [B, T], ``labels`` [T], ``s_global`` [B].
        """
        grid, config = features.grid, self.config
        flip = config.harmonic_of == "normality"
        scales = []
        for k in config.scales:
            p = self.window_scores(features, k, text, weight, labels, context)  # Eq. 11
            scales.append(spread(1 - p if flip else p, grid, k, config.fusion))
        if config.include_image_scale:
            image = 1 - s_global if flip else s_global
            scales.append(image[:, None, None].expand(-1, *grid))
        joined = join(scales, config.fusion)
        return 1 - joined if flip else joined

    def window_scores(
        self,
        features: ImageFeatures,
        k: int,
        text: Tensor,
        weight: Tensor,
        labels: Tensor,
        context: ScoreContext[Any],
    ) -> Tensor:
        """Anomaly probability of every window: [B, M]."""
        window = F.normalize(features[self.window_tap(k)].float(), dim=-1)  # [B, M, E]
        temperature = self.config.temperature
        if not self.config.aligner.enabled:
            return anomaly_probability(window @ text.mT, weight[:, None], labels, temperature)
        project = self.projection(context) if self.config.aligner.space == "width" else None
        if project is not None:  # pull the text back to the visual width
            text = text @ self._inverse(context)
        u_global = F.normalize(features[self.values].float(), dim=-1)  # [B, 1+L, D]
        u_local = F.normalize(features[self.values_tap(k)].float(), dim=-1)  # [B, M, n, D]
        index = constant(window_indices, features.grid, k, device=window.device)  # [M, n]
        widest = max(index.shape[1], text.shape[1]) * text.shape[-1] * len(text)
        out = []
        for part in torch.arange(len(index), device=index.device).split(max(1, CHUNK // widest)):
            local = align(
                text[:, None], u_global[:, index[part]], u_local[:, part], self.config.aligner
            )  # [B, m, T, D]
            if project is not None:
                local = local @ project
            cosine = torch.einsum("bme,bmte->bmt", window[:, part], F.normalize(local, dim=-1))
            out.append(anomaly_probability(cosine, weight[:, None], labels, temperature))
        return torch.cat(out, dim=1)

    def _inverse(self, context: ScoreContext[Any]) -> Tensor:
        """The pseudo-inverse [E, D] of the projection; made once for as long as that lives."""
        weights = context.image_encoder.visual.proj
        if weights not in self._inverses:
            self._inverses[weights] = torch.linalg.pinv(self.projection(context))
        found: Tensor = self._inverses[weights]
        return found

    @staticmethod
    def projection(context: ScoreContext[Any]) -> Tensor:
        """The visual projection P [D, E] in float32."""
        projection: Tensor = context.image_encoder.visual.proj
        return projection.detach().float()
