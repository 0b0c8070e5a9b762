"""Work beside the encoder: in order, bounded, on one core, and complete at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from zsad.errors import CellError
from zsad.runner.beside import Beside
from zsad.runner.category import CategoryRun


def test_jobs_keep_their_order_and_are_done_at_the_end() -> None:
    done: list[int] = []
    with Beside() as beside:
        for i in range(50):
            beside.submit(lambda i=i: (time.sleep(0.001), done.append(i))[1])  # type: ignore[misc]
        assert len(done) < 50
    assert done == list(range(50))


def test_no_more_jobs_wait_than_were_allowed() -> None:
    gate = threading.Event()
    handed = []

    def hand() -> None:
        for i in range(6):
            beside.submit(lambda: bool(gate.wait(20)))  # type: ignore[arg-type]
            handed.append(i)

    with Beside(waiting=2) as beside:
        producer = threading.Thread(target=hand)
        producer.start()
        deadline = time.monotonic() + 20
        while len(handed) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert len(handed) == 3  # one runs, two wait; the fourth has to
        gate.set()
        producer.join(20)
    assert len(handed) == 6


def test_the_callers_threads_stay_what_they_were() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    try:
        torch.set_num_threads(2)
        with Beside() as beside:
            beside.submit(lambda: seen.append(torch.get_num_threads()))
            later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert torch.get_num_threads() == 2
        assert seen == [1, 2]  # its own thread; one that starts later
    finally:
        torch.set_num_threads(before)


def test_a_job_that_raises_is_not_passed_over_in_silence() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Beside() as beside:
        beside.submit(fail)


def test_an_error_in_the_metrics_costs_its_own_cell(
    bench: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes up beside the encoder, when that is at another batch already."""
    update = CategoryRun._update

    def broken(run: CategoryRun, outcome: Any, *rest: Any) -> None:
        if (outcome.head.label, run.category.key) == ("winclip", "bolt"):
            raise CellError("the pixels cannot be counted")
        update(run, outcome, *rest)

    monkeypatch.setattr(CategoryRun, "_update", broken)
    document = bench("clip,winclip", overrides=["run.batch_size=3"])
    (failure,) = document["failed"]
    assert (failure["cell"]["method"], failure["cell"]["category"]) == ("winclip", "bolt")
    assert "the pixels cannot be counted" in failure["error"]
    assert len(document["cells"]) == 3
