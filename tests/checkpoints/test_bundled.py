"""States that come with methods: found, and taken in place of their own training alone."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import zsad
from zsad import registry
from zsad.benchmarks.tiny import states
from zsad.checkpoints import bundled
from zsad.checkpoints.account import TrainedOn, account_of
from zsad.checkpoints.states import describe, save
from zsad.cli.main import main
from zsad.errors import RequestError, WeightsError
from zsad.method import new_method
from zsad.registry import MethodEntry
from zsad.runner.columns import make_column

METHOD = "coop"  # a small trained one


@pytest.fixture(scope="module")
def backbone() -> zsad.backbones.Backbone:  # type: ignore[name-defined]
    from zsad import backbones

    return backbones.load("zsad-tiny", device=torch.device("cpu"))


@pytest.fixture
def entry(
    backbone: zsad.backbones.Backbone,  # type: ignore[name-defined]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> MethodEntry:
    """The method from a folder in which a state lies, in its initial values."""
    found = registry.method(METHOD)
    moved = dataclasses.replace(found, origin=str(tmp_path / "config.yaml"))
    known = registry.methods()
    monkeypatch.setattr(registry, "methods", lambda: {**known, METHOD: moved})
    monkeypatch.setattr(registry, "method", lambda name: registry.methods()[name])
    method = new_method(moved, moved.resolve(), backbone.info)
    about = TrainedOn("synthetic", "f", "test", uids=("a", "b"))
    meta = describe(method, seed=3, trained_on=about, identity="made")
    state = {k: v + 0.25 for k, v in method.trained_state().items()}
    save(bundled.place_of(moved, "zsad-tiny"), state, meta)
    return moved


def test_a_state_takes_the_place_of_its_own_training_alone(
    entry: MethodEntry, tmp_path: Path
) -> None:
    target = tmp_path / "checkpoints" / "x.safetensors"
    assert not bundled.provide(entry, "zsad-tiny", "another", target)
    assert not bundled.provide(entry, "vit-l-14-336", "made", target)
    assert not target.exists()
    assert bundled.provide(entry, "zsad-tiny", "made", target)
    assert target.read_bytes() == bundled.place_of(entry, "zsad-tiny").read_bytes()


def test_a_damaged_state_is_nobodys(entry: MethodEntry, tmp_path: Path) -> None:
    path = bundled.place_of(entry, "zsad-tiny")
    path.write_bytes(path.read_bytes()[:40])
    assert not bundled.is_of(path, "made")


def test_load_method_takes_it_and_says_so(entry: MethodEntry) -> None:
    loaded = zsad.load_method(METHOD, backbone="zsad-tiny", device="cpu")
    assert loaded.untrained is False
    assert loaded.method.trained_from["bundled"] == (
        "state that comes with zsad for zsad-tiny: trained on synthetic, test part, 2 images, "
        "seed 3"
    )
    initial = zsad.load_method(METHOD, backbone="zsad-tiny", device="cpu", untrained=True)
    assert initial.untrained is True
    for name, value in initial.method.trained_state().items():
        torch.testing.assert_close(loaded.method.trained_state()[name], value + 0.25)


def test_settings_that_it_was_not_trained_with_are_refused(entry: MethodEntry) -> None:
    with pytest.raises(RequestError, match=r"was trained with other settings \(n_ctx\)"):
        zsad.load_method(METHOD, backbone="zsad-tiny", device="cpu", overrides=["n_ctx=3"])


def test_settings_of_the_state_itself_are_not_in_the_way(
    entry: MethodEntry,
    backbone: zsad.backbones.Backbone,  # type: ignore[name-defined]
) -> None:
    place = bundled.place_of(entry, "zsad-tiny")
    place.with_suffix(".yaml").write_text("config: {train: {epochs: 3}}\n", encoding="utf-8")
    method = new_method(entry, entry.resolve(("x", {"train": {"epochs": 3}})), backbone.info)
    about = TrainedOn("synthetic", "f", "test", uids=("a", "b"))
    save(place, method.trained_state(), describe(method, trained_on=about, identity="made"))
    loaded = zsad.load_method(METHOD, backbone="zsad-tiny", device="cpu")
    assert loaded.method.config.train.epochs == 3
    with pytest.raises(RequestError, match=r"was trained with other settings \(train\)"):
        zsad.load_method(METHOD, backbone="zsad-tiny", device="cpu", overrides=["train.epochs=4"])


def test_without_a_state_a_checkpoint_is_asked_for(entry: MethodEntry, tmp_path: Path) -> None:
    bundled.place_of(entry, "zsad-tiny").unlink()
    with pytest.raises(WeightsError, match="no checkpoint is given"):
        zsad.load_method(METHOD, backbone="zsad-tiny", device="cpu")


def test_the_command_says_which_state_it_took(
    entry: MethodEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (32, 32), (90, 90, 90)).save(tmp_path / "nut.png")
    words = ["--method", METHOD, "--class-name", "nut", "--backbone", "zsad-tiny"]
    assert main(["predict", *words, "--device", "cpu", str(tmp_path / "nut.png")]) == 0
    said = capsys.readouterr()
    assert "note: state that comes with zsad for zsad-tiny: trained on synthetic" in said.err
    assert "state that comes with zsad" in json.loads(said.out)["made_by"]["bundled"]


def around(entry: MethodEntry, folder: Path, bits: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What loads of the state, before and after it is written in so many bits a number."""
    place = bundled.place_of(entry, "zsad-tiny")
    before = zsad.load_method(METHOD, backbone="zsad-tiny", device="cpu").method.trained_state()
    states.rewritten(place, folder, METHOD, bits).replace(place)
    after = zsad.load_method(METHOD, backbone="zsad-tiny", device="cpu").method.trained_state()
    return before, after


def test_half_precision_takes_half_the_room_and_loads(entry: MethodEntry, tmp_path: Path) -> None:
    before, after = around(entry, tmp_path, 16)
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-4)
    assert bundled.is_of(bundled.place_of(entry, "zsad-tiny"), "made")
    assert states.form_of(bundled.place_of(entry, "zsad-tiny")) == "half precision"


def test_a_few_bits_a_number_load_too(entry: MethodEntry, tmp_path: Path) -> None:
    before, after = around(entry, tmp_path, 6)
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        step = value.abs().max().item() / 31
        torch.testing.assert_close(after[name], value, rtol=0, atol=step)
        assert not torch.equal(after[name], value)
    assert bundled.is_of(bundled.place_of(entry, "zsad-tiny"), "made")
    assert states.form_of(bundled.place_of(entry, "zsad-tiny")) == "6 bits a number"


def test_the_card_of_a_packed_state_is_not_made_of_the_packed_state(
    entry: MethodEntry, tmp_path: Path
) -> None:
    """What its training reached cannot be read off it."""
    place = bundled.place_of(entry, "zsad-tiny")
    assert states.form_of(place) == "single precision"
    states.rewritten(place, tmp_path, METHOD, 6).replace(place)
    with pytest.raises(SystemExit, match="the training that was packed, is not there"):
        states.describe_anew(entry, [0], tmp_path / "work")


# ------------------------------------------------------------------- those that are there
def there() -> list[MethodEntry]:
    return [e for e in states.trained() if bundled.state_of(e, states.BACKBONE)]


def test_states_are_current() -> None:
    """Run `make states` after a change of a config, a revision, the backbone or the pictures."""
    found = there()
    if not found:
        pytest.skip("no state is there")
    wanted = states.identities([e.name for e in found])
    stale = {e.name: why for e in found if (why := states.is_stale(e, wanted[e.name]))}
    assert stale == {}
    assert states.size() <= states.MOST_BYTES


def test_a_raised_revision_makes_its_state_stale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So `--check` and the test above fail until `make states` has run."""
    name = there()[0].name
    known = registry.methods()
    raised = dataclasses.replace(known[name], revision=known[name].revision + 1)
    monkeypatch.setattr(registry, "methods", lambda: {**known, name: raised})
    monkeypatch.setattr(registry, "method", lambda name: registry.methods()[name])
    monkeypatch.setattr("sys.argv", ["states", "--check", "--methods", name])
    assert states.main() == 1
    assert f"{name}: its state was made by another training" in capsys.readouterr().out


def test_a_state_of_other_settings_is_bound_to_them(entry: MethodEntry) -> None:
    before = states.identities([METHOD])[METHOD]
    recipe = bundled.place_of(entry, "zsad-tiny").with_suffix(".yaml")
    recipe.write_text("why: it is a test\nconfig: {train: {epochs: 3}}\n", encoding="utf-8")
    after = states.identities([METHOD])[METHOD]
    assert after != before
    assert states.options_of(entry) == [f"{METHOD}.train.epochs=3"]
    recipe.write_text("config: {train: {epochs: 3}}\nreason: none\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"'reason'.*zsad-tiny.yaml"):
        states.identities([METHOD])


def test_bundled_is_a_checkpoint_of_a_sweep(entry: MethodEntry) -> None:
    given = make_column(entry, [("here", {"checkpoint": "bundled"})]).checkpoint
    assert given is not None
    assert given.of("elpv").files() == [bundled.place_of(entry, "zsad-tiny")]
    bundled.place_of(entry, "zsad-tiny").unlink()
    with pytest.raises(RequestError, match=rf"{METHOD}.checkpoint=bundled.*none comes with zsad"):
        make_column(entry, [("here", {"checkpoint": "bundled"})])


def test_another_backbone_makes_every_state_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "remembered_sha256", lambda path: "0" * 64)
    found = there()
    wanted = states.identities([e.name for e in found])
    assert all(states.is_stale(e, wanted[e.name]) for e in found)


def test_every_state_has_a_card() -> None:
    for entry in there():
        place = bundled.place_of(entry, states.BACKBONE)
        card = place.with_name(states.CARD).read_text(encoding="utf-8")
        assert f"{place.stat().st_size:,} bytes" in card
        assert "not comparable with published figures" in " ".join(card.split())


@pytest.mark.parametrize(
    "method", [m for m, e in registry.methods().items() if bundled.state_of(e, "zsad-tiny")]
)
def test_every_card_names_the_epochs_of_every_phase(method: str) -> None:
    """Its sum alone, 15, would be the default of FiLo's first phase, which had 10."""
    entry = registry.method(method)
    place = bundled.place_of(entry, "zsad-tiny")
    meta, epochs = account_of(place), states.epochs_of(entry)
    assert meta is not None
    assert sum(int(n) for n in re.findall(r"\d+(?= of the phase)|^\d+$", epochs)) == meta.epochs
    card = place.with_name(states.CARD).read_text(encoding="utf-8")
    assert f"| seed | {meta.seed} |\n| epochs | {epochs} |\n" in card


@pytest.mark.parametrize(
    "method", [m for m, e in registry.methods().items() if bundled.state_of(e, "zsad-tiny")]
)
def test_every_state_is_taken_though_some_took_fewer_epochs(method: str) -> None:
    loaded = zsad.load_method(method, backbone="zsad-tiny", device="cpu")
    place = bundled.place_of(registry.method(method), "zsad-tiny")
    assert loaded.method.trained_from["bundled"] == bundled.words(place)


def test_the_page_lists_every_state() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "zsad-tiny.md").read_text("utf-8")
    block = page.partition("<!-- states -->")[2].partition("<!-- end of states -->")[0]
    rows = [line.strip("| ").split(" | ") for line in block.strip().splitlines()[2:]]
    wanted = {}
    for entry in there():
        place = bundled.state_of(entry, states.BACKBONE)
        assert place is not None
        given = "; ".join(f"`{word}`" for word in states.options_of(entry)) or "the default"
        card = place.with_name(states.CARD).read_text(encoding="utf-8")
        seeds = re.findall(r"^\(seeds? ([\d, ]+);", card, re.M)
        made = re.findall(r"^\| (?:image AUROC|pixel AUPRO) \| .+ \| (.+) \|$", card, re.M)
        size = f"{place.stat().st_size:,}"
        wanted[entry.title] = [given, states.form_of(place), size, *seeds, *made]
    assert {title: rest for title, *rest in rows} == wanted
