"""The feature store gives back what it was given, within its budgets, or nothing."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsad.training.feature_store import FeatureStore, part_of, space_of
from zsad.types import BackboneInfo, EncoderVariant, ImageFeatures, Tap

INFO = BackboneInfo(
    name="small",
    title="",
    image_size=32,
    patch=8,
    depth=4,
    width=16,
    embed=8,
    text_width=8,
    text_depth=2,
    context_length=77,
    stages=(1, 2, 3, 4),
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    weights_sha256="aa",
)
VV, CLS = Tap("vv_proj", 4, 2), Tap("cls_raw")


def batch(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> ImageFeatures:
    generator = torch.Generator().manual_seed(seed)
    return ImageFeatures(
        (4, 4),
        {
            VV: torch.randn(count, 17, 8, generator=generator).to(dtype),
            CLS: torch.randn(count, 8, generator=generator).to(dtype),
        },
    )


def stores(tmp_path: Path) -> dict[str, FeatureStore]:
    return {
        "host": FeatureStore(host_bytes=1 << 20),
        "device": FeatureStore(host_bytes=0, device_bytes=1 << 20),
        "disk": FeatureStore(host_bytes=0, disk_bytes=1 << 20, folder=tmp_path),
        "mixed": FeatureStore(
            host_bytes=1200, device_bytes=700, disk_bytes=1 << 20, folder=tmp_path
        ),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["host", "device", "disk", "mixed"])
def test_features_come_back_bit_for_bit(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    names = [f"image{i}" for i in range(14)]
    feature_store = batch(14, dtype=dtype)
    with stores(tmp_path)[kind] as store:
        assert store.put_batch("s", names, feature_store)
        order = [4, 0, 5, 5, 1]
        found = store.get_batch("s", [names[i] for i in order], {VV, CLS}, (4, 4))
        assert found is not None
        for tap, value in feature_store.data.items():
            assert found[tap].dtype == dtype
            assert torch.equal(found[tap], value[order])
        if kind == "mixed":
            assert all(tier.used > 0 for tier in store.tiers)
    assert not list(tmp_path.rglob("*.bin"))  # scratch is removed


def test_the_store_keeps_values_of_its_own() -> None:
    feature_store = batch(2)
    store = FeatureStore(host_bytes=1 << 20)
    store.put_batch("s", ["a", "b"], feature_store)
    kept = feature_store[CLS][0].clone()
    feature_store[CLS].zero_()
    found = store.get("s", "a", part_of(CLS))
    assert found is not None
    assert torch.equal(found, kept)
    assert found.untyped_storage().nbytes() == kept.numel() * 4  # not the whole batch


def test_another_space_image_or_tap_is_not_found() -> None:
    store = FeatureStore(host_bytes=1 << 20)
    store.put_batch("s", ["a"], batch(1))
    assert store.get_batch("t", ["a"], {VV}, (4, 4)) is None
    assert store.get_batch("s", ["a", "b"], {VV}, (4, 4)) is None
    assert store.get_batch("s", ["a"], {VV, Tap("cls")}, (4, 4)) is None
    assert store.get_batch("s", ["a"], {CLS}, (4, 4)) is not None


@given(st.integers(0, 3000), st.integers(0, 3000), st.lists(st.integers(0, 9), max_size=30))
def test_budgets_hold_and_nothing_comes_back_wrong(
    device_bytes: int, host_bytes: int, puts: list[int]
) -> None:
    store = FeatureStore(host_bytes=host_bytes, device_bytes=device_bytes)
    values = {i: torch.full((50,), float(i)) for i in range(10)}
    for i in puts:
        store.put("s", str(i), "x", values[i])
    for tier in store.tiers:
        assert tier.used <= tier.budget
    room = device_bytes // 200 + host_bytes // 200
    found = {i: value for i in values if (value := store.get("s", str(i), "x")) is not None}
    assert len(found) == min(len(set(puts)), room)
    assert all(torch.equal(value, values[i]) for i, value in found.items())


def test_an_idle_space_makes_room_and_one_in_use_does_not() -> None:
    store = FeatureStore(host_bytes=400)
    value = torch.ones(50)
    store.hold(["new", "companion"])
    store.put("companion", "a", "x", value)
    store.put("old", "a", "x", value)
    assert store.put("new", "a", "x", value)
    assert store.get("old", "a", "x") is None
    assert store.get("companion", "a", "x") is not None
    assert not store.put("new", "b", "x", value)
    assert store.refused == 1
    assert store.get("new", "a", "x") is not None


def test_a_full_disk_turns_the_tier_off_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from zsad.training import feature_store

    store = FeatureStore(host_bytes=0, disk_bytes=1 << 20, folder=tmp_path)
    value = torch.arange(50.0)
    assert store.put("s", "a", "x", value)
    real_append = feature_store._Records.append

    def full(self: Any, digest: str, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_store._Records, "append", full)
    assert not store.put("s", "b", "x", value)
    assert "feature cache on disk is off" in caplog.text
    monkeypatch.setattr(feature_store._Records, "append", real_append)
    found = store.get("s", "a", "x")
    assert found is not None
    assert torch.equal(found, value)
    store.close()


def test_space_names_whatever_changes_a_feature() -> None:
    base = space_of(INFO, EncoderVariant(32))
    assert base == space_of(INFO, EncoderVariant(32))
    assert base == space_of(replace(INFO, title="other words"), EncoderVariant(32))
    others = [
        space_of(replace(INFO, weights_sha256="bb"), EncoderVariant(32)),
        space_of(INFO, EncoderVariant(48)),
        space_of(INFO, EncoderVariant(32, pos_interp="bilinear")),
        space_of(INFO, EncoderVariant(32, activation="gelu")),
        space_of(replace(INFO, mean=(0.0, 0.5, 0.5)), EncoderVariant(32)),
        space_of(INFO, EncoderVariant(32), "fp16"),
    ]
    assert len({base, *others}) == 7
