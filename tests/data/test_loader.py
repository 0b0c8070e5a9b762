"""Preprocessing, mask policies and batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.miniatures import write_miniature
from tests.fake_cuda import DeviceMix, simulated
from tests.methods.small import hand_info
from zsad.data.index import load_index
from zsad.data.loader import BatchLoader, DecodeThreads, ImageBatch, batches
from zsad.data.transforms import MaskPolicy, Preprocess
from zsad.on_device import Sent, SideStream
from zsad.types import EncoderVariant, Sample

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
PREPROCESS = Preprocess(8, MEAN, STD)
INFO = hand_info(image_size=40, depth=4, width=8, embed=8)


# -------------------------------------------------------------------------- preprocessing
def test_normalisation_by_hand() -> None:
    out = PREPROCESS(Image.new("RGB", (20, 10), (255, 0, 51)))
    assert out.shape == (3, 8, 8)
    expected = torch.tensor([(1 - 0.5) / 0.2, (0 - 0.4) / 0.25, (0.2 - 0.3) / 0.5])
    torch.testing.assert_close(out[:, 0, 0], expected)
    torch.testing.assert_close(out, expected.view(3, 1, 1).expand(3, 8, 8))


def test_an_encoder_variant_has_its_own_size_filter_and_values() -> None:
    info = replace(INFO, mean=MEAN, std=STD)
    plain = Preprocess.for_variant(info, EncoderVariant())
    assert plain == Preprocess.for_backbone(info) == Preprocess(40, MEAN, STD, "bicubic")
    own = Preprocess.for_variant(info, EncoderVariant(24, input="unit", resize="bilinear"))
    assert own == Preprocess(24, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (31, 50, 3), np.uint8))
    expected = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)) / 255
    torch.testing.assert_close(own(image), torch.from_numpy(expected).float().permute(2, 0, 1))


def test_resizing_equals_torchvision() -> None:
    """The released code resizes with torchvision's transform on PIL images."""
    from torchvision import transforms as tv

    pixels = np.random.default_rng(0).integers(0, 255, (37, 23, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    reference = tv.Compose(
        [
            tv.Resize((8, 8), interpolation=tv.InterpolationMode.BICUBIC),
            tv.ToTensor(),
            tv.Normalize(MEAN, STD),
        ]
    )
    torch.testing.assert_close(PREPROCESS(image), reference(image), atol=1e-6, rtol=0)


def test_values_are_those_of_one_operation_after_the_other() -> None:
    """To the bit, whatever the order in memory."""
    pixels = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = PREPROCESS(Image.fromarray(pixels))
    mean, std = (np.array(v, np.float32) for v in (MEAN, STD))
    expected = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    assert found.is_contiguous()
    np.testing.assert_array_equal(found.numpy(), expected.transpose(2, 0, 1))


def test_a_picture_is_decoded_once(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mask is held to the size of the picture that was read."""
    with_masks = [s for s in samples if s.mask]
    calls = []
    monkeypatch.setattr("zsad.data.images.image_size", lambda uri: calls.append(uri) or (8, 8))
    (batch,) = batches(with_masks, PREPROCESS, MaskPolicy(), len(with_masks), 0)
    assert len(batch.samples) == len(with_masks) > 0
    assert not calls


def test_proportions_are_not_kept() -> None:
    """The left half stays the left half of the square."""
    pixels = np.zeros((10, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 255
    out = Preprocess(8, (0, 0, 0), (1, 1, 1), "nearest")(Image.fromarray(pixels))
    assert out[:, :, :4].min() == 1
    assert out[:, :, 4:].max() == 0


# ---------------------------------------------------------------------- released decoding
def released(image: Image.Image, size: int) -> np.ndarray:
    """torchvision's Resize and CLIP's ``convert("RGB")`` after it, as the released loaders go."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC).convert("RGB"))


def odd_pictures() -> dict[str, Image.Image]:
    """Pictures of 24 x 20 pixels whose mode makes a difference."""
    values = np.random.default_rng(4).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    return {
        "RGBA": Image.fromarray(values),
        "LA": Image.fromarray(values[..., :2]),
        "P": Image.fromarray(values[..., :3]).quantize(16),
        "1": Image.fromarray(values[..., 0] > 99),
    }


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_the_released_decoding_resizes_what_a_file_stores(mode: str, tmp_path: Path) -> None:
    picture, path = odd_pictures()[mode], tmp_path / "a.png"
    assert picture.mode == mode
    picture.save(path)
    sample = Sample(str(path), 0, "x", uid="x")
    info = replace(INFO, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    found = {}
    for decoding in ("rgb", "released"):
        variant = EncoderVariant(8, decoding=decoding)  # type: ignore[arg-type]
        preprocess = Preprocess.for_variant(info, variant)
        (batch,) = batches([sample], preprocess, workers=0)
        found[decoding] = np.rint(batch.images[0].permute(1, 2, 0).numpy() * 255)
        assert preprocess.describe()["decoding"]["alpha"] == (
            "composited on black" if decoding == "rgb" else "dropped after resizing"
        )
    assert (found["released"] == released(Image.open(path), 8)).all()
    assert np.abs(found["released"] - found["rgb"]).max() > 5


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_both_decodings_agree_on_what_datasets_are_made_of(mode: str, tmp_path: Path) -> None:
    values = np.random.default_rng(4).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
    sample = Sample(str(tmp_path / "a.png"), 0, "x", uid="x")
    one, other = (
        next(iter(batches([sample], replace(PREPROCESS, stored=stored), workers=0))).images
        for stored in (False, True)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_in_halves(workers: int, tmp_path: Path) -> None:
    """Both squares and where the right one begins; what cannot be cut so is told by its file."""
    values = np.random.default_rng(4).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    for name, picture in (("a", values), ("b", values[:, :16]), ("c", values[:, :9])):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    samples = [Sample(str(tmp_path / f"{n}.png"), 0, "x", uid=n) for n in "abc"]
    preprocess = replace(PREPROCESS, size=8, halves=True)
    (batch,) = batches(samples, preprocess, workers=workers)
    assert batch.shifts == [0.5, 0.0]  # 12 x 8 and 8 x 8 pixels
    assert batch.right is not None
    whole = replace(preprocess, halves=False)(Image.fromarray(values), (8, 12))
    torch.testing.assert_close(batch.images[0], whole[..., :8], rtol=0, atol=0)
    torch.testing.assert_close(batch.right[0], whole[..., 4:], rtol=0, atol=0)
    second = batch.select(slice(1, 2))
    assert second.right is not None
    assert second.shifts == [0.0]
    torch.testing.assert_close(second.right, second.images, rtol=0, atol=0)
    assert [str(e) for e in batch.failures] == [
        f"{tmp_path / 'c.png'}: 9 x 16 pixels: cannot be cut into a left and a right square that "
        f"cover it, which takes a width of one to two heights"
    ]


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="interpolation 'cubic' is not one of"):
        Preprocess(8, MEAN, STD, "cubic")
    with pytest.raises(ValueError, match="size 0"):
        Preprocess(0, MEAN, STD)
    with pytest.raises(ValueError, match="mask policy 'area'"):
        MaskPolicy("area")  # type: ignore[arg-type]


# --------------------------------------------------------------------------- mask policies
def test_masks_stay_binary_and_in_place() -> None:
    mask = np.zeros((40, 20), dtype=bool)
    mask[:20, :10] = True
    for policy in (MaskPolicy("bilinear"), MaskPolicy("nearest")):
        out = policy(mask, 8)
        assert out.dtype == bool
        assert out.sum() == 16
        assert out[:4, :4].all()
    assert (MaskPolicy("native")(mask, 8) == mask).all()


def test_bilinear_is_the_released_rule() -> None:
    """Threshold, then bilinear with antialiasing, then above one half (scale 0..255)."""
    mask = np.random.default_rng(2).random((33, 47)) > 0.6
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((8, 8), Image.Resampling.BILINEAR)
    expected = (torch.from_numpy(np.array(grey)).float() / 255) > 0.5
    assert (torch.from_numpy(MaskPolicy()(mask, 8)) == expected).all()


def test_whole_keeps_what_is_marked_all_over() -> None:
    """Released MuSc: resized bilinearly, then cut to whole numbers of 0..1."""
    mask = np.random.default_rng(2).random((33, 47)) > 0.1
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((8, 8), Image.Resampling.BILINEAR)
    expected = (np.asarray(grey, dtype=np.float32) / 255).astype(int) == 1
    edge = np.zeros((40, 40), dtype=bool)
    edge[:, :22] = True
    assert (MaskPolicy("whole")(mask, 8) == expected).all()
    assert MaskPolicy("whole")(edge, 8)[0].tolist() == [True] * 4 + [False] * 4
    assert MaskPolicy("bilinear")(edge, 8)[0].tolist() == [True] * 4 + [False] * 4
    assert MaskPolicy("bilinear")(mask, 8).sum() > MaskPolicy("whole")(mask, 8).sum()


# --------------------------------------------------------------------------------- batches
@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    write_miniature("kvasir", tmp_path)
    write_miniature("mvtec", tmp_path)
    tile = [s for s in load_index("mvtec", tmp_path).samples if s.category == "tile"]
    return [*tile, *load_index("kvasir", tmp_path).samples]


def _joined(found: list[ImageBatch]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    masks = torch.cat([b.masks for b in found if isinstance(b.masks, torch.Tensor)])
    return torch.cat([b.images for b in found]), masks, [s.uid for b in found for s in b.samples]


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_do_not_depend_on_workers_or_size(
    samples: list[Sample], workers: int, batch_size: int
) -> None:
    images, masks, uids = _joined(list(batches(samples, PREPROCESS, None, batch_size, workers)))
    expected = _joined(list(batches(samples, PREPROCESS, None, 1, 0)))
    assert torch.equal(images, expected[0])
    assert torch.equal(masks, expected[1])
    assert uids == expected[2] == [s.uid for s in samples]


def test_image_and_mask_share_their_geometry(samples: list[Sample]) -> None:
    """The bright rectangle and its mask move together."""
    bright = Preprocess(16, (0, 0, 0), (1, 1, 1))
    for batch in batches([s for s in samples if s.label], bright):
        assert isinstance(batch.masks, torch.Tensor)
        grey = batch.images.mean(1)
        for image, mask in zip(grey, batch.masks):
            assert image[mask].mean() > image[~mask].mean() + 0.2


def test_labels_and_mask_availability(samples: list[Sample], tmp_path: Path) -> None:
    write_miniature("br35h", tmp_path)
    unmasked = load_index("br35h", tmp_path).samples
    found = next(iter(batches([*samples[2:4], *unmasked], PREPROCESS, batch_size=50)))
    labels = [s.label for s in (*samples[2:4], *unmasked)]
    assert found.labels.tolist() == labels
    assert found.labels.dtype == torch.int64
    expected = [s.label == 0 or s.mask is not None for s in (*samples[2:4], *unmasked)]
    assert found.has_mask.tolist() == expected
    assert not all(expected)


def test_native_masks_keep_their_sizes(samples: list[Sample]) -> None:
    found = next(iter(batches(samples[-5:], PREPROCESS, MaskPolicy("native"), 5)))
    assert isinstance(found.masks, list)
    assert [tuple(m.shape) for m in found.masks] == [(28, 28)] + [(25, 32)] * 4


def test_unreadable_files_are_left_out_and_named(samples: list[Sample]) -> None:
    broken = samples[1]
    Path(broken.image).write_bytes(Path(broken.image).read_bytes()[:60])
    assert samples[-1].mask is not None
    Path(samples[-1].mask).unlink()
    for workers in (0, 2):
        found = list(batches(samples, PREPROCESS, None, 2, workers))
        failures = [str(f) for b in found for f in b.failures]
        assert len(failures) == 2
        assert broken.image in failures[0]
        assert "no such file" in failures[1]
        assert sum(len(b) for b in found) == len(samples) - 2


def test_only_failures(tmp_path: Path) -> None:
    absent = [Sample(str(tmp_path / "absent.png"), 0, "thing")]
    (found,) = batches(absent, PREPROCESS, workers=2)
    assert len(found) == 0
    assert len(found.failures) == 1
    assert list(batches([], PREPROCESS)) == []


def test_decoding_stays_at_most_two_batches_ahead(samples: list[Sample]) -> None:
    taken = 0

    def counted() -> object:
        nonlocal taken
        for sample in samples * 5:
            taken += 1
            yield sample

    stream = iter(batches(counted(), PREPROCESS, None, 2, 2))  # type: ignore[arg-type]
    next(stream)
    assert taken <= 2 + 2 * 2
    stream.close()  # type: ignore[attr-defined]


def test_a_method_that_stops_early_ends_the_threads(samples: list[Sample]) -> None:
    import threading

    stream = iter(batches(samples, PREPROCESS, None, 1, 3))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("zsad-decode")]


def test_the_next_loader_is_begun_while_the_first_is_read(samples: list[Sample]) -> None:
    """It is begun once, when the first one's last sample is with the threads; it then holds two
    batches at most, begins no third loader by itself, and gives the same batches."""
    taken = 0

    def counted() -> Iterator[Sample]:
        nonlocal taken
        for sample in samples:
            taken += 1
            yield sample

    begun: list[int] = []
    with DecodeThreads(2) as threads:
        third = BatchLoader(samples, PREPROCESS, None, 2, threads)
        second = BatchLoader(counted(), PREPROCESS, None, 2, threads, followed_by=third)

        class Noting:
            def start(self) -> None:
                begun.append(len(found))
                second.start()

        first = BatchLoader(samples, PREPROCESS, None, 2, threads, followed_by=Noting())
        found: list[ImageBatch] = []
        for batch in first:
            found.append(batch)
        assert len(begun) == 1
        assert begun[0] < len(found)
        assert taken == 4
        assert not third._started
        again = list(second)
        assert third._started
        third.close()
    expected = list(batches(samples, PREPROCESS, None, 2))
    for got in (found, again):
        assert [len(b) for b in got] == [len(b) for b in expected]
        assert all(torch.equal(a.images, b.images) for a, b in zip(got, expected, strict=True))


def test_without_threads_nothing_is_begun_ahead(samples: list[Sample]) -> None:
    class Never:
        def start(self) -> None:
            raise AssertionError("there is no thread that could begin")

    with DecodeThreads(0) as threads:
        loader = BatchLoader(samples, PREPROCESS, None, 2, threads, followed_by=Never())
        loader.start()
        assert sum(len(b) for b in loader) == len(samples)


def test_images_of_8_bits_become_the_same_values_where_they_are_normalised(
    samples: list[Sample],
) -> None:
    with simulated("cuda") as gpu, DecodeThreads(0) as threads:
        loader = BatchLoader(samples, PREPROCESS, None, 2, threads, pinned=True)
        for batch, wanted in zip(loader, batches(samples, PREPROCESS, None, 2), strict=True):
            assert batch.images.dtype == torch.uint8
            before = gpu.waits.total()
            there = batch.images.to(gpu.device, non_blocking=True)
            assert gpu.waits.total() == before  # pinned
            assert torch.equal(PREPROCESS.normalised(there).cpu(), wanted.images)


def test_the_next_batch_goes_to_the_device_beside_its_work(samples: list[Sample]) -> None:
    wanted = [b.images for b in batches(samples, PREPROCESS, None, 2)]
    with simulated("cuda") as gpu, DecodeThreads(1) as threads:
        loader = BatchLoader(samples, PREPROCESS, None, 2, threads, side=SideStream(gpu.device))
        seen = []
        for batch in loader:
            seen.append(batch.images)
            before = sum(gpu.beside.values())
            until = time.monotonic() + 60
            more = len(samples) - 2 * len(seen) >= 2  # the last batch is not whole
            while more and sum(gpu.beside.values()) == before and time.monotonic() < until:
                loader.look_ahead()  # as soon as it is decoded
            assert sum(gpu.beside.values()) == before + more
            loader.look_ahead()  # a second time it has nothing to do
            assert sum(gpu.beside.values()) == before + more
        assert not gpu.waits
        assert [images.device.type for images in seen] == ["cpu", *["cuda"] * (len(seen) - 1)]
        found = [PREPROCESS.brought(images, gpu.device).cpu() for images in seen]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_memory_that_lacks_for_it_costs_nothing(samples: list[Sample]) -> None:
    class Full(SideStream):
        def send(self, pinned: torch.Tensor) -> Sent:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with simulated("cuda") as gpu, DecodeThreads(1) as threads:
        loader = BatchLoader(samples, PREPROCESS, None, 2, threads, side=Full(gpu.device))
        uids = []
        for batch in loader:
            assert batch.images.device.type == "cpu"
            uids += [s.uid for s in batch.samples]
            loader.look_ahead()
    assert uids == [s.uid for s in samples]


def test_what_is_still_on_its_way_cannot_be_read() -> None:
    with simulated("cuda") as gpu:
        sent = SideStream(gpu.device).send(torch.ones(3).pin_memory())
        with pytest.raises(DeviceMix, match="before the stream that copies it was waited for"):
            sent.values + 1
        assert (sent.taken() + 1).cpu().tolist() == [2, 2, 2]
