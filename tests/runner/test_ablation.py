"""What an ablation promises: the boxes that its rows are about, and rows that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zsad
from zsad.cli.bench import print_failures
from zsad.errors import RequestError


@pytest.mark.slow
def test_a_protocol_that_needs_boxes_starts_without_a_detector_only_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its row "boxes" is then reported: it is the row without them."""
    path = tmp_path / "two-rows.yaml"
    path.write_text(
        "{title: two rows, datasets: [synthetic], methods: [filo], boxes: required, "
        "auxiliary: {default: synthetic}, ablation: true, rows: [{label: boxes, method: filo}, "
        "{label: none, method: filo, overrides: {grounding: none}}]}"
    )
    run: dict[str, Any] = {
        "protocol": str(path),
        "backbone": "zsad-tiny",
        "limit": 1,
        "results": tmp_path / "results",
        "device": "cpu",
        "offline": True,
    }
    training = ["filo.train.epochs=1", "filo.train.adapter_epochs=1"]
    with pytest.raises(RequestError, match=r"needs the boxes of a detector for filo.*=none"):
        zsad.bench(**run, overrides=training)  # the cache holds no detector
    assert not (tmp_path / "results").exists()  # nothing was run
    document = zsad.bench(**run, overrides=[*training, "filo.grounding=none"])
    (failure,) = document["failed"]
    assert failure["cell"] == {"method": "filo@none"}
    assert "changed neither map nor score of any image: equal to filo@boxes" in failure["error"]
    assert failure["stored"] is True
    assert {line["configuration"] for line in document["summary"]} >= {
        " (no boxes) [train.adapter_epochs=1, train.epochs=1]"
    }
    print_failures(document["failed"])
    assert "zsad: no effect: filo@none: its switch" in capsys.readouterr().err
