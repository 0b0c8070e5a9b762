"""CoCoOp (Zhou et al., CVPR 2022), adapted to anomaly detection as FAPrompt's comparison does.

CoOp's shared context, shifted per image: V_k(x) = V_k + m(g), with g the unit class embedding and
m a two-layer bottleneck (Eq. 5 of the paper).  Both sentences are encoded for every image; what
precedes the state word is run once for both.
"""

from __future__ import annotations

from typing import ClassVar

from zsad.methods.coop.method import CoOp


class CoCoOp(CoOp):
    """CoOp with a meta-net."""

    name: ClassVar[str] = "cocoop"
    conditional: ClassVar[bool] = True
