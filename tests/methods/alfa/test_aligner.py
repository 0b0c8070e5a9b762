"""The aligner: identities of the closed form, and agreement with dense d x d solutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import registry
from zsad.methods.alfa.aligner import align, procrustes, ridge
from zsad.methods.alfa.config import Aligner

DEFAULT: Aligner = registry.method("alfa").resolve().aligner


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def orthonormal(d: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(unit(d, d, seed=seed)).Q


# ------------------------------------------------------------------------------ identities
@pytest.mark.parametrize("solver", ["ridge", "procrustes"])
@pytest.mark.parametrize("tokens", ["window+cls", "window", "cls"])
def test_equal_values_leave_the_text_alone(solver: str, tokens: str) -> None:
    config = DEFAULT.__class__(**{**DEFAULT.__dict__, "solver": solver, "tokens": tokens})
    text, g = unit(3, 2, 16).float(), unit(3, 5, 16, seed=1).float()
    torch.testing.assert_close(align(text, g, g, config), text, rtol=0, atol=2e-6)


def test_small_ridge_maps_every_global_value_to_its_local_one() -> None:
    g, v = unit(5, 16, seed=1), unit(5, 16, seed=2)
    torch.testing.assert_close(ridge(g, g, v, 1e-10), v, rtol=0, atol=1e-6)
    torch.testing.assert_close(ridge(g, g, v, 0.0), v, rtol=0, atol=1e-9)


def test_large_ridge_switches_the_aligner_off() -> None:
    text, g, v = unit(2, 16), unit(5, 16, seed=1), unit(5, 16, seed=2)
    torch.testing.assert_close(ridge(text, g, v, 1e9), text, rtol=0, atol=1e-6)


def test_text_outside_the_tokens_span_stays() -> None:
    basis = orthonormal(16, seed=3)
    g, v = unit(5, 8, seed=1) @ basis[:8], unit(5, 16, seed=2)
    text = unit(2, 8, seed=4) @ basis[8:]  # orthogonal to all global values
    torch.testing.assert_close(ridge(text, g, v, 0.1), text, rtol=0, atol=1e-12)
    local = unit(5, 8, seed=5) @ basis[:8]
    torch.testing.assert_close(procrustes(text, g, local, 0.1), text, rtol=0, atol=1e-12)
    # Without the anchor nothing of such a text is left.
    assert ridge(text, g, v, 0.1, anchor=0.0).abs().max() < 1e-12


def test_a_linear_map_is_recovered_from_its_action() -> None:
    """With as many independent rows as dimensions the map itself comes out."""
    d = 12
    true = torch.eye(d, dtype=torch.float64) + 0.3 * unit(d, d, seed=1)
    g = unit(2 * d, d, seed=2)
    text = unit(2, d, seed=3)
    torch.testing.assert_close(ridge(text, g, g @ true, 1e-9), text @ true, rtol=0, atol=1e-4)
    for anchor in (0.0, 0.5):
        found = ridge(text, g, g @ true, 1e-9, anchor)
        torch.testing.assert_close(found, text @ true, rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", ["ridge", "procrustes"])
def test_a_planted_rotation_inside_a_plane_is_recovered(solver: str) -> None:
    angle = torch.tensor(0.7, dtype=torch.float64)
    rotation = torch.eye(10, dtype=torch.float64)
    rotation[0, 0] = rotation[1, 1] = angle.cos()
    rotation[0, 1], rotation[1, 0] = angle.sin(), -angle.sin()
    basis = orthonormal(10, seed=1)
    rotation = basis.T @ rotation @ basis
    g = unit(6, 2, seed=2) @ basis[:2]
    text = unit(2, 10, seed=3)
    found = (ridge if solver == "ridge" else procrustes)(text, g, g @ rotation, 1e-9)
    torch.testing.assert_close(found, text @ rotation, rtol=0, atol=1e-4)


def test_procrustes_keeps_lengths_and_the_angle_between_the_labels() -> None:
    text, g, v = unit(4, 2, 32), unit(4, 5, 32, seed=1), unit(4, 5, 32, seed=2)
    found = procrustes(text, g, v, 0.1)
    torch.testing.assert_close(found @ found.mT, text @ text.mT, rtol=0, atol=1e-12)
    assert (found - text).abs().max() > 0.05  # and yet it moves


# ------------------------------------------------------------------------- dense reference
@pytest.mark.parametrize("rho", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("anchor", [1.0, 0.5, 0.0])
def test_ridge_equals_the_dense_solution(rho: float, anchor: float) -> None:
    d, n = 20, 5
    text, g, v = unit(2, d), unit(n, d, seed=1), unit(n, d, seed=2)
    lam = rho * (g @ g.T).trace() / n
    eye = torch.eye(d, dtype=torch.float64)
    # argmin |g A - v|^2 + lam |A - I|^2 has the normal equations (g'g + lam) A = g'v + lam I.
    anchored = torch.linalg.solve(g.T @ g + lam * eye, g.T @ v + lam * eye)
    bare = torch.linalg.solve(g.T @ g + lam * eye, g.T @ v)  # the same without the anchor
    expected = text @ (bare + anchor * (anchored - bare))
    torch.testing.assert_close(ridge(text, g, v, rho, anchor), expected, rtol=0, atol=1e-12)


def test_procrustes_equals_the_dense_solution() -> None:
    d, n, rho = 20, 5, 0.1
    text, g, v = unit(2, d), unit(n, d, seed=1), unit(n, d, seed=2)
    # On the whole space: outside the span the matrix is rho I, whose polar factor is I.
    u, _, vh = torch.linalg.svd(g.T @ v + rho * torch.eye(d, dtype=torch.float64))
    torch.testing.assert_close(procrustes(text, g, v, rho), text @ (u @ vh), rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------- stability
@pytest.mark.parametrize("solver", ["ridge", "procrustes"])
def test_rank_deficient_values_are_no_problem(solver: str) -> None:
    config = DEFAULT.__class__(**{**DEFAULT.__dict__, "solver": solver})
    g = unit(4, 1, 32, seed=1).expand(4, 10, 32).float()  # ten equal rows
    v = unit(4, 1, 32, seed=2).expand(4, 10, 32).float()
    found = align(unit(4, 2, 32).float(), g, v, config)
    assert found.isfinite().all()
    assert found.norm(dim=-1).max() < 3
    exact = align(
        unit(4, 2, 32).float(), g, v, DEFAULT.__class__(**{**DEFAULT.__dict__, "ridge": 0.0})
    )
    assert exact.isfinite().all()


def test_nearly_equal_rows_agree_with_double_precision() -> None:
    base = unit(1, 64, seed=1)
    g = F.normalize(base + 1e-3 * unit(10, 64, seed=2), dim=-1)
    v = F.normalize(base + 0.2 * unit(10, 64, seed=3), dim=-1)
    text = unit(2, 64)
    for rho in (0.0, 1e-6, 1e-3, 0.1):
        config = DEFAULT.__class__(**{**DEFAULT.__dict__, "ridge": rho})
        single = align(text.float(), g.float(), v.float(), config)
        double = align(text, g.float().double(), v.float().double(), config)
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


def test_half_precision_features_are_solved_in_single() -> None:
    text, g, v = unit(2, 16), unit(5, 16, seed=1), unit(5, 16, seed=2)
    low = align(text.half(), g.half(), v.half(), DEFAULT)
    assert low.dtype == torch.float16
    torch.testing.assert_close(low.double(), align(text, g, v, DEFAULT), rtol=0, atol=2e-3)


def test_batched_windows_equal_single_ones() -> None:
    text, g, v = unit(3, 1, 2, 16), unit(3, 7, 5, 16, seed=1), unit(3, 7, 5, 16, seed=2)
    for solver in (ridge, procrustes):
        batch = solver(text, g, v, 0.1)
        for b in range(3):
            for m in range(7):
                torch.testing.assert_close(
                    batch[b, m], solver(text[b, 0], g[b, m], v[b, m], 0.1), rtol=0, atol=1e-12
                )
