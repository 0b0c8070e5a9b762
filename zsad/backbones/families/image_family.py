"""What a family of image towers has to give, and what all of them share.  No torch until loaded."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad.backbones.backbone_spec import BackboneSpec, Sizes, quarters, require_fitting
from zsad.backbones.known_weights import Origin
from zsad.backbones.locate import FoundWeights, default_folder, find_named, graded
from zsad.backbones.precision import resolved, set_products
from zsad.backbones.reachable import is_offline, unreachable
from zsad.config import BackboneSettings
from zsad.errors import RequestError, WeightsError, gist
from zsad.io.names import at_home
from zsad.types import BackboneInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from zsad.backbones.image_only import ImageOnlyBackbone, States

HUB_FILE = "model.safetensors"  # as timm's repositories call it


class ImageFamily(ABC):
    """A kind of image towers.  ``name``: as specs have it.

    A family gives its specs, an architecture and how to read it; where weights lie, what they are,
    options, devices and the account of them are shared.
    """

    name: str

    @abstractmethod
    def specs(self) -> Sequence[BackboneSpec]:
        """Its backbones; each has ``family``, ``model`` and ``sizes``.  No torch."""

    @abstractmethod
    def module(self, spec: BackboneSpec) -> nn.Module:
        """The architecture with random values."""

    @abstractmethod
    def read(self, module: nn.Module, images: Tensor, layers: list[int], final: bool) -> States:
        """One pass over normalised images [B, 3, H, W] of any multiple of the patch."""

    # ------------------------------------------------------------------ before weights are read
    def outline(self, spec: BackboneSpec, image_size: int = 0) -> BackboneInfo:
        """What methods may know of a backbone.

        Raises :class:`RequestError` for an image size that does not fit the patches
        (:func:`zsad.backbones.backbone_spec.require_fitting`).
        """
        sizes = _sizes(spec)
        size = image_size or spec.image_size or sizes.native
        require_fitting(size, sizes.patch)
        return BackboneInfo(
            name=spec.name,
            title=spec.title,
            image_size=size,
            patch=sizes.patch,
            depth=sizes.depth,
            width=sizes.width,
            embed=sizes.width,
            text_width=0,
            text_depth=0,
            context_length=0,
            stages=spec.stages or quarters(sizes.depth),
            mean=spec.mean,
            std=spec.std,
            interpolation=spec.interpolation,
            activation=spec.activation or "gelu",
            native_size=sizes.native,
        )

    def locate(
        self, spec: BackboneSpec, weights: str | os.PathLike[str] | None
    ) -> FoundWeights | None:
        """The weights that loading would use, or None if they would have to be fetched.

        Raises :class:`WeightsError` for an explicit path without a file, or where nothing could be
        fetched either.
        """
        if weights is not None and os.fspath(weights) == "random":
            text = f"random/0/{self.name}/{spec.model}/{sorted(asdict(_sizes(spec)).items())}"
            return FoundWeights(None, "random", _sha256(text), Origin("random"))
        if weights is not None:
            path = at_home(weights)
            if not path.is_file():
                raise WeightsError(
                    f"backbone.weights={weights}: no such file; give the path of a state dict"
                )
            return graded(spec, path, "")
        names = [spec.weights_file] if spec.weights_file else []
        found = find_named(names, spec.hub_repo, (HUB_FILE,))
        if found is None and not spec.hub_repo:
            raise WeightsError(
                f"backbone '{spec.name}' has no address to fetch weights from; give "
                f"backbone.weights=FILE, or backbone.weights=random"
            )
        return None if found is None else graded(spec, found, "", [spec.hub_repo])

    # -------------------------------------------------------------------------------- loading
    def load(
        self,
        spec: BackboneSpec,
        settings: BackboneSettings,
        device: str | torch.device = "cpu",
        offline: bool = False,
    ) -> ImageOnlyBackbone:
        """Load a backbone.  Raises :class:`RequestError` for an option of CLIP's,
        :class:`WeightsError` for weights that are missing, unsafe or do not fit."""
        import torch

        from zsad.backbones.devices import named_device
        from zsad.backbones.image_only import ImageOnlyBackbone

        _refuse(spec, settings)
        where = named_device(device)
        settings = resolved(settings, str(where))
        set_products(settings.precision, where)
        info = self.outline(spec, settings.image_size)
        found = self.locate(spec, settings.weights) or self._fetched(spec, offline)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self.module(spec)
        if found.path is not None:
            self._fill(spec, module, found.path)
        info = replace(info, **found.account(spec.demo))
        halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
        module.requires_grad_(False).eval()
        module.to(where, halves.get(settings.precision, torch.float32))
        return ImageOnlyBackbone(module, info, self.read, settings.figures)

    def _fetched(self, spec: BackboneSpec, offline: bool) -> FoundWeights:
        reason = "offline mode"
        if not is_offline(offline):
            reason = unreachable("huggingface.co", hub=True)
        if not reason:
            from huggingface_hub import hf_hub_download

            try:
                path = Path(hf_hub_download(spec.hub_repo, HUB_FILE))
                return graded(spec, path, "", [spec.hub_repo])
            except Exception as error:  # the hub's client raises many types
                reason = gist(error)
        folder = os.environ.get("ZSAD_WEIGHTS") or default_folder()
        raise WeightsError(
            f"backbone '{spec.name}': weight file {spec.weights_file or HUB_FILE} is missing and "
            f"cannot be fetched from {spec.hub_repo} ({reason}); put it into {folder} or give "
            f"backbone.weights=FILE"
        )

    def _fill(self, spec: BackboneSpec, module: nn.Module, path: Path) -> None:
        """Put the values of a file into the module.  Raises :class:`WeightsError`."""
        from zsad.backbones.tensor_files import check_values, naming, read_tensors
        from zsad.backbones.wrappers import opened

        with naming(path, f"does not hold weights of backbone '{spec.name}'"):
            state, _ = opened(read_tensors(path))
            if not isinstance(state, dict):
                raise WeightsError(f"{path}: holds a {type(state).__name__}, not a state dict")
            check_values(path, state)
            if words := _unlike(state, module.state_dict()):
                raise WeightsError(
                    f"{path}: does not fit backbone '{spec.name}': {words}; give the weights of "
                    f"{spec.hub_repo or spec.model}"
                )
            module.load_state_dict(state)


def _refuse(spec: BackboneSpec, settings: BackboneSettings) -> None:
    """Raise :class:`RequestError` for settings that only CLIP heeds."""
    plain = BackboneSettings()
    for key in ("activation", "compile", "engine_cache"):
        if getattr(settings, key) != getattr(plain, key):
            raise RequestError(
                f"backbone.{key}={getattr(settings, key)}: is for CLIP, and '{spec.name}' is of "
                f"another family; leave the key out"
            )
    if settings.engine not in ("auto", "torch"):
        raise RequestError(
            f"backbone.engine={settings.engine}: runs CLIP alone, and '{spec.name}' runs in torch; "
            f"leave the key out"
        )


def _unlike(state: dict[str, Any], wanted: dict[str, Any]) -> str:
    """In what a state dict is not that of a module, in words; "" if it is."""
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    shapes = [n for n in wanted if n in state and state[n].shape != wanted[n].shape]
    if missing:
        return f"{missing[0]} is missing ({len(missing)} in all)"
    if shapes:
        name = shapes[0]
        return f"{name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
    return f"{extra[0]} is unknown to it ({len(extra)} in all)" if extra else ""


def _sizes(spec: BackboneSpec) -> Sizes:
    assert spec.sizes is not None, f"backbone {spec.name} states no sizes"
    return spec.sizes


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
