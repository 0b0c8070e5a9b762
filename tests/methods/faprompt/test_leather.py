"""FAPrompt's reasons for real pictures: ten prompts that do not all say one thing."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import zsad


def test_ten_prompts_name_several_words_on_real_leather(shared_dir: Path) -> None:
    """Eight pictures of MVTec AD's leather, at least four distinct words among the ten prompts
    (median).  Untrained prompts say that the common direction is gone; it is what made them say
    one word, trained or not."""
    folder = shared_dir / "data" / "mvtec" / "leather" / "test"
    paths = sorted(p for p in folder.rglob("*.png") if p.parent.name != "good")[:8]
    assert len(paths) == 8
    loaded = zsad.load_method("faprompt", backbone="zsad-tiny", device="cpu", untrained=True)
    found = loaded.predict([str(p) for p in paths], "leather", explanations=10)
    words = [{r.text for r in p.reasons if r.label == "prompt"} for p in found]
    assert median(map(len, words)) >= 4
    for prediction in found:
        fit = "prompt" if prediction.anomalous else "normal"
        assert {r.label for r in prediction.explanations} == {fit}
