"""Stage times with a clock set by hand; the account of a run; batch sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from zsad.backbones.batch_size import Portions, estimate_batch
from zsad.cli.bench import spent
from zsad.errors import CellError
from zsad.runner import timing
from zsad.runner.timing import StageTimer, peak_memory
from zsad.types import BackboneInfo

CPU = torch.device("cpu")


class Clock:
    """Stands still unless told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(timing, "time", found)
    return found


def test_a_stage_is_charged_to_all_its_names_even_when_it_raises(clock: Clock) -> None:
    timer = StageTimer(CPU)
    with timer.stage("head", "head:clip"):
        clock.now += 2
    with contextlib.suppress(ZeroDivisionError), timer.stage("head", "head:filo"):
        clock.now += 3
        raise ZeroDivisionError
    assert timer.seconds == {"head": 5, "head:clip": 2, "head:filo": 3}
    before = dict(timer.seconds)
    with timer.stage("map"):
        clock.now += 1
    assert timer.since(before) == {"head": 0, "head:clip": 0, "head:filo": 0, "map": 1}


def test_only_waiting_is_charged_not_what_the_consumer_does(clock: Clock) -> None:
    def slow() -> Iterator[int]:
        for i in range(3):
            clock.now += 1
            yield i
        clock.now += 0.5  # finding out that there is no more

    timer = StageTimer(CPU)
    for _ in timer.waiting(slow(), "decode"):
        clock.now += 10
    assert timer.seconds["decode"] == pytest.approx(3.5)


def test_the_account_of_a_run(bench: Callable[..., dict[str, Any]]) -> None:
    document = bench("clip,winclip")
    counters, seconds = document["counters"], document["seconds"]
    assert counters["images_per_second"] > 0
    assert counters["peak_memory_mib"]["host"] > 50
    for cell in document["cells"]:  # every record says where its time went
        assert set(cell["seconds"]) >= {"decode", "encode", "head", "map", "metrics", "text"}
    shared = sum(c["seconds"]["encode"] for c in document["cells"]) / 2
    assert seconds["encode"] == pytest.approx(shared, abs=1e-2)
    own = sum(c["seconds"]["head"] for c in document["cells"])
    assert seconds["head"] == pytest.approx(own, abs=1e-2)
    line = spent(seconds, counters)
    assert "images/s" in line or "s per image" in line
    assert "16 images" in line
    assert "MiB host memory at most" in line
    again = bench("clip,winclip")["counters"]
    assert again["images"] == 0
    assert "images_per_second" not in again


def test_the_summary_names_the_costliest_head() -> None:
    seconds = {"encode": 3.0, "head": 2.0, "head:filo": 1.5, "head:clip": 0.5, "map": 0.01}
    counters = {"images": 8, "images_per_second": 1.6, "peak_memory_mib": {"host": 700}}
    assert spent(seconds, counters) == (
        "Time: encode 3.0 s, head 2.0 s, costliest head filo 1.5 s "
        "(8 images, 1.6 images/s, 700 MiB host memory at most)"
    )


def test_peak_memory_rises_with_what_is_held() -> None:
    before = peak_memory(CPU)["host"]
    held = torch.ones(256 << 18)  # 256 MiB
    assert peak_memory(CPU)["host"] >= max(before, 256)
    del held


def info(**sizes: Any) -> BackboneInfo:
    given: dict[str, Any] = {
        "name": "some",
        "title": "some",
        "image_size": 518,
        "patch": 14,
        "depth": 24,
        "width": 1024,
        "embed": 768,
        "text_width": 768,
        "text_depth": 12,
        "context_length": 77,
        "stages": (6, 12, 18, 24),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    return BackboneInfo(**{**given, **sizes})


def test_a_first_batch_size_shrinks_with_what_an_image_needs() -> None:
    usual = estimate_batch(info(), 518, 8, CPU)
    assert 1 < usual <= 32
    assert estimate_batch(info(), 1036, 8, CPU) < usual
    assert estimate_batch(info(), 518, 24, CPU) < usual
    assert estimate_batch(info(width=192, patch=16), 224, 4, CPU) == 32
    assert estimate_batch(info(), 14000, 8, CPU) == 1


def test_portions_lose_no_row_and_keep_their_order() -> None:
    portions = Portions()
    asked: list[int] = []

    def run(rows: slice) -> list[int]:
        found = list(range(11))[rows]
        asked.append(len(found))
        if len(found) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return found

    parts = list(portions.run(run, 11))
    assert [row for _, part in parts for row in part] == list(range(11))
    assert [rows for rows, _ in parts] == [slice(i, min(i + 3, 11)) for i in (0, 3, 6, 9)]
    assert portions.used == {2, 3}
    assert asked == [11, 6, 3, 3, 3, 2]  # a size that failed is not tried again
    asked.clear()
    assert [len(part) for _, part in portions.run(run, 4)] == [3, 1]
    assert asked == [3, 1]
    with pytest.raises(RuntimeError, match="not a memory matter"):
        list(Portions().run(_fail, 4))


def test_what_was_taken_is_not_worked_on_again() -> None:
    taken: list[int] = []

    def run(rows: slice) -> slice:
        if rows.start >= 4 and rows.stop - rows.start > 1:  # memory is short later on
            raise MemoryError
        return rows

    for rows, _ in Portions(most=4).run(run, 8):
        taken += range(8)[rows]
    assert taken == list(range(8))


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    def run(rows: slice) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(CellError, match="out of memory with a single image; choose"):
        list(Portions().run(run, 4))


def _fail(rows: Any) -> None:
    raise RuntimeError("not a memory matter")
