"""A loaded method as a function of one normalised image, with its class name fixed.

Everything but the image is a constant: the text is prepared, references are encoded, and caches of
what depends on shapes alone are filled by a first pass in torch.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from zsad import maps as dense
from zsad.errors import RequestError
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.request import References, categories_of
from zsad.runtime.graph import takes
from zsad.types import ImageFeatures


def refuse(loaded: LoadedMethod) -> None:
    """Raise :class:`RequestError` for a method that scores no picture by itself."""
    method = loaded.method
    said = f"method '{method.name}' cannot be exported: "
    if method.transductive:
        raise RequestError(
            f"{said}it compares the pictures of a call with each other, and a package scores one "
            f"picture by itself; use `zsad predict`, or choose another method"
        )
    if method.carries:
        raise RequestError(
            f"{said}a picture is scored with what the one before it left; use `zsad predict`"
        )
    if method.view_taps():
        raise RequestError(
            f"{said}it looks at several views of a picture; use `zsad predict`, or a preset "
            f"without views"
        )
    if loaded.framing.keep_aspect or loaded.framing.bits:
        raise RequestError(
            "`zsad export`: a package sees 8-bit pictures in squares; leave aspect and bits out"
        )


class Deployed(nn.Module):
    """Image [1, 3, S, S] -> (score [1], map [1, S, S]), both float32.

    A method that says which boxes count (:meth:`Method.box_rule`, here ``rule``) takes ``cells``
    [1, 9] and ``covered`` [1, S, S], too: see :class:`ScoreContext` and ``maps.build_maps``.
    ``inputs``: shapes by name, in order.  ``references``: as for ``LoadedMethod.predict``.
    Raises :class:`RequestError` for a method that scores no picture by itself.
    """

    def __init__(self, loaded: LoadedMethod, class_name: str, references: References = ()) -> None:
        super().__init__()
        refuse(loaded)
        method, scorer, backbone = loaded.method.eval(), loaded.scorer, loaded.backbone
        self.method, self.visual = method, backbone.model.visual
        categories = categories_of(class_name, 1)
        self.rule = method.box_rule(categories[0])
        with torch.no_grad():
            near = loaded.known.encoded(references, categories)
            self._context = scorer.context(categories, references=near)
        self._encoder = backbone.image_encoder(scorer.request.variant)
        self._taps = scorer.request.taps
        self._size = scorer.image_size
        self.inputs = takes(self._size, self.rule is not None)

    def forward(
        self, image: Tensor, cells: Tensor | None = None, covered: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        side = self._size // self._encoder.patch
        features = ImageFeatures((side, side), self._encoder.taps_of(image, self._taps))
        scores = self.method.score(features, replace(self._context, cells=cells))
        maps = dense.build_maps(scores, self.method.map_spec(), self._size, covered)
        return self.method.image_score(scores, maps).float(), maps.final.float()


@torch.no_grad()
def recorded(module: Deployed) -> torch.export.ExportedProgram:
    """Record the method for one picture.

    Raises :class:`RequestError` where its score reads values back from a tensor, and so is not a
    fixed sequence of operations.
    """
    given = tuple(torch.zeros(shape) for shape in module.inputs.values())
    module(*given)  # fills what is kept: position tables, folded kernels, prompt trees, tokens
    try:
        return torch.export.export(module, given, strict=False)
    except Exception as error:  # the recorder raises many types
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RequestError(
            f"method '{module.method.name}' cannot be exported with this configuration: {why}"
        ) from error
