"""The fine-grained aligner (Sec. 4.3): carry the text from the global into a window's value space.

The paper asks for a transformation with W v_G = v_L, where v_G and v_L are the value tokens of
the class and of a window's patches, taken from the pass over the whole image and from the pass
over the window.  With n = k*k+1 rows in d >> n dimensions this leaves d - n directions open; how
they are completed is the decision, and it is [ours]: change the text as little as possible.

Rows are unit vectors, transformations act from the right (u_G A = u_L).
"""

from __future__ import annotations

import torch
from torch import Tensor

from zsad.methods.alfa.config import Aligner
from zsad.on_device import able

STABLE_RIDGE = 1e-3  # below this, neighbouring tokens are too collinear for float32


def align(text: Tensor, u_global: Tensor, u_local: Tensor, config: Aligner) -> Tensor:
    """Carry ``text`` [*, T, d] over; ``u_global``, ``u_local`` [*, n, d] -> [*, T, d].

    Computed in float32 or better; not normalised.
    """
    rows = {"window+cls": slice(None), "window": slice(1, None), "cls": slice(0, 1)}[config.tokens]
    kind = torch.float64 if config.ridge < STABLE_RIDGE else torch.float32
    kind = torch.promote_types(kind, text.dtype) if text.dtype == torch.float64 else kind
    if text.device.type == "mps":  # has neither such numbers nor such solvers
        return align(able(text), able(u_global), able(u_local), config).to(text.device)
    with torch.autocast(text.device.type, enabled=False):
        t, g, v = text.to(kind), u_global[..., rows, :].to(kind), u_local[..., rows, :].to(kind)
        if config.solver == "procrustes":
            return procrustes(t, g, v, config.ridge).to(text.dtype)
        return ridge(t, g, v, config.ridge, config.anchor).to(text.dtype)


def ridge(text: Tensor, g: Tensor, v: Tensor, rho: float, anchor: float = 1.0) -> Tensor:
    """Anchored ridge: text A with A = argmin |g A - v|^2 + lambda |A - I|^2, lambda = rho tr(K)/n.

    A = I + g^T (K + lambda)^-1 (v - g), K = g g^T; A itself is never formed.  ``anchor`` scales
    the part of I outside the tokens' row space: at 0 the text is re-expressed wholly in the
    window's value tokens (the pseudo-inverse solution).  ``rho`` 0 is the limit of small rho.
    """
    gram = g @ g.mT  # [*, n, n]
    right = g @ text.mT  # [*, n, T]
    if rho == 0:
        weights: Tensor = torch.linalg.pinv(gram, hermitian=True) @ right
    else:
        scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        matrix = gram + rho * scale.clamp_min(1e-12) * eye
        if torch.compiler.is_compiling():
            weights = eliminated(matrix, right)
        elif matrix.device.type == "cpu":
            weights = torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
        else:  # positive definite by its diagonal; the check would wait for the device
            weights = torch.cholesky_solve(right, torch.linalg.cholesky_ex(matrix).L)
    return anchor * text + weights.mT @ (v - anchor * g)


def eliminated(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve ``matrix`` [*, n, n] x = ``right`` [*, n, T], positive definite, by Gauss-Jordan steps
    in plain operations: exchange formats have no Cholesky decomposition."""
    joined = torch.cat([matrix, right], -1)  # [*, n, n+T]
    for i in range(matrix.shape[-1]):
        row = joined[..., i : i + 1, :] / joined[..., i : i + 1, i : i + 1]
        others = joined - joined[..., i : i + 1] * row
        joined = torch.cat([others[..., :i, :], row, others[..., i + 1 :, :]], -2)
    return joined[..., matrix.shape[-1] :]


def procrustes(text: Tensor, g: Tensor, v: Tensor, rho: float) -> Tensor:
    """Anchored Procrustes: the rotation inside span(g, v) that brings g closest to v.

    J = orthonormal basis of the span, U S V^T = svd(J^T g^T v J + rho I), R = U V^T;
    text + text J (R - I) J^T.  Keeps the lengths of the text and the angle between the labels.
    """
    basis = torch.linalg.qr(torch.cat([g, v], dim=-2).mT).Q  # [*, d, 2n]
    cross = (g @ basis).mT @ (v @ basis)  # [*, 2n, 2n]
    eye = torch.eye(cross.shape[-1], dtype=cross.dtype, device=cross.device)
    u, _, vh = torch.linalg.svd(cross + rho * eye)
    turned: Tensor = (text @ basis) @ (u @ vh - eye) @ basis.mT
    return text + turned
