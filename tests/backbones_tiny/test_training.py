"""The pool and the trainer of zsad-tiny: resumable, whatever the workers, with words for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from zsad.benchmarks.tiny import captions
from zsad.benchmarks.tiny.batches import Pool
from zsad.benchmarks.tiny.pool import choose, fill, kinds
from zsad.benchmarks.tiny.train import PEAK, Run, Tokens, build, cosines
from zsad.benchmarks.tiny.validate import separation
from zsad.data.synthetic.generator import ANY_DEFECT

PAIRS = 24


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    fill(folder, PAIRS, seed=5)
    return folder


def content(folder: Path) -> tuple[bytes, ...]:
    return tuple((folder / n).read_bytes() for n in ("pictures.u8", "masks.u8", "facts.jsonl"))


def test_a_pool_does_not_depend_on_its_workers(pool: Path, tmp_path: Path) -> None:
    fill(tmp_path, PAIRS, seed=5, workers=2)
    assert content(tmp_path) == content(pool)


def test_an_interrupted_pool_goes_on_where_it_stopped(pool: Path, tmp_path: Path) -> None:
    fill(tmp_path, PAIRS, seed=5)
    facts = tmp_path / "facts.jsonl"
    facts.write_text("".join(facts.read_text("utf-8").splitlines(True)[:7]), "utf-8")
    pictures = np.memmap(tmp_path / "pictures.u8", np.uint8, "r+")
    pictures[len(pictures) // 2 :] = 0
    pictures.flush()
    fill(tmp_path, PAIRS, seed=5)
    assert content(tmp_path) == content(pool)


def test_shares_add_up_and_every_defect_has_its_words() -> None:
    table = kinds()
    assert sum(share for _, share in table) == pytest.approx(1)
    assert all(kind.group == "train" for kind, _ in table)
    named = {defect for kind, _ in table for defect in kind.defects}
    assert named | {ANY_DEFECT} == set(captions.DEFECT_WORDS)
    assert {choose(0, i)[1] for i in range(3000)} == named | {ANY_DEFECT}


def test_a_pool_that_grows_is_taken_in(pool: Path, tmp_path: Path) -> None:
    fill(tmp_path, PAIRS, seed=5)
    facts = tmp_path / "facts.jsonl"
    lines = facts.read_text("utf-8").splitlines(True)
    facts.write_text("".join(lines[:9]) + lines[9][:20], "utf-8")  # caught while being written
    growing = Pool(tmp_path)
    assert len(growing.drawn[0]) == 9
    facts.write_text("".join(lines), "utf-8")
    growing.reload()
    assert len(growing.drawn[0]) == len(growing.drawn[1]) == PAIRS
    assert growing.drawn[1].sum() == pytest.approx(1)


def test_the_first_filters_are_orthogonal_and_cover_brightness_and_colour() -> None:
    filters = cosines(torch.Size((192, 3, 16, 16))).flatten(1).double()
    filters = filters / filters.norm(dim=1, keepdim=True)
    assert torch.allclose(filters @ filters.T, torch.eye(192, dtype=torch.float64), atol=1e-6)
    # The first of each kind answers to an even patch of its colour and to nothing else.
    grey = torch.ones(3, 16, 16, dtype=torch.float64).flatten()
    answers = (filters @ grey / grey.norm()).abs()
    assert answers[0] == pytest.approx(1)
    assert answers[1:].max() < 1e-6


def test_the_helper_looks_at_directions_only() -> None:
    model = build(Tokens())
    features = torch.randn(3, 5, 256)
    once = model.probe(1, features, model.text_projection)
    again = model.probe(1, 7.5 * features, model.text_projection)
    assert torch.allclose(once, again, atol=1e-5)


def step(run: Run, pool: Pool, index: int) -> float:
    """One step of the trainer; returns the loss."""
    words = captions.Words(run.tokens.strangers)
    batch = pool.draw(np.random.default_rng((8, index)), 2, 112)
    return sum(run.learn(batch, words, np.random.default_rng((7, index)), PEAK).values())


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(pool: Path, tmp_path: Path) -> None:
    pairs = Pool(pool)
    whole = Run(tmp_path / "whole", seed=3)
    expected = [step(whole, pairs, i) for i in range(2)]
    first = Run(tmp_path / "parts", seed=3)
    found = [step(first, pairs, 0)]
    first.save()
    second = Run(tmp_path / "parts", seed=99)
    assert second.step == 1
    found += [step(second, pairs, 1)]
    assert found == pytest.approx(expected, rel=1e-5)
    for name, value in whole.average.items():
        assert torch.allclose(second.average[name], value, atol=1e-5), name


def test_the_curve_of_the_training_shows_aurocs() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(500) < 0.3
    scores = np.round(rng.normal(labels, 1.0), 1)  # with ties
    assert separation(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert separation(np.array([0, 1]), torch.tensor([0.1, 0.2])) == 1.0
