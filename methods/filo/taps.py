"""Which features FiLo reads: seven stages, as the paper names them or as released."""

from __future__ import annotations

from dataclasses import dataclass

from zsad.errors import RequestError
from zsad.methods.filo.config import Config
from zsad.types import BackboneInfo, EncoderVariant, Tap


@dataclass(frozen=True)
class Taps:
    """``qkv``, ``vv``: what each stage reads; ``qkv_layers``, ``vv_layers``: its name."""

    qkv: tuple[Tap, ...]
    vv: tuple[Tap, ...]
    qkv_layers: tuple[int, ...]
    vv_layers: tuple[int, ...]


def variant(config: Config, backbone: BackboneInfo) -> EncoderVariant:
    """The forward pass that the stages come from."""
    activation = config.encoder.activation
    if activation == "released":
        activation = "weights" if backbone.image_size == backbone.native_size else "gelu"
    return EncoderVariant(
        pos_interp=config.encoder.pos_interp,
        activation=activation,
        decoding=config.encoder.decoding,
    )


def choose(config: Config, backbone: BackboneInfo) -> Taps:
    """Return the stages.  Raises :class:`RequestError` for v-v stages that do not exist."""
    start = backbone.vv_start(config.vv_blocks)
    layers = backbone.stages
    in_path = tuple(layer for layer in layers[1:] if layer >= start)
    vv_layers = config.vv_stages or in_path or (backbone.depth,)
    for layer in vv_layers:
        if not start <= layer <= backbone.depth:
            raise RequestError(
                f"filo.vv_stages: no v-v features at layer {layer}; with vv_blocks="
                f"{config.vv_blocks} the v-v path of {backbone.name} runs from block {start} to "
                f"{backbone.depth}"
            )
    if config.taps == "released_alias":
        qkv, vv = _released(layers, vv_layers, start, backbone.depth)
    else:
        qkv = tuple(Tap("tokens", layer) for layer in layers)
        vv = tuple(Tap("vv", layer, start) for layer in vv_layers)
    return Taps(
        qkv if config.branches.qkv != "none" else (),
        vv if config.branches.vv != "none" else (),
        layers if config.branches.qkv != "none" else (),
        vv_layers if config.branches.vv != "none" else (),
    )


def _released(
    layers: tuple[int, ...], vv_layers: tuple[int, ...], start: int, depth: int
) -> tuple[tuple[Tap, ...], tuple[Tap, ...]]:
    """The released encoder keeps references and then adds in place (commit 36ff29c).

    So every v-v output, and the ordinary one just before the v-v path begins, is the final v-v
    state in the end; and an ordinary output within the path has the next block's attention
    added to it, without that block's feed-forward part.
    """
    final = Tap("vv", depth, start)
    qkv = []
    for layer in layers:
        if layer == start - 1:
            qkv.append(final)
        elif start <= layer < depth:
            qkv.append(Tap("mid", layer))
        else:
            qkv.append(Tap("tokens", layer))
    return tuple(qkv), tuple(final for _ in vv_layers)
