"""Draw the predictions that README shows: four methods on one defect, the page of `zsad predict`,
the app.

    make pictures

The pictures are generated ones of held-out categories.  ALFA needs no training; the states of
FiLo, FAPrompt and KAnoCLIP for the bundled backbone come with zsad.  FiLo looks without boxes,
since its detector does not come along.  The page and the app need Chromium (`make browser`);
without it their old pictures stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

import zsad
from docs.regenerate import GAP, beside, opened, outline
from tests.report import browser
from zsad import registry
from zsad.data import splits
from zsad.data.images import read_image, read_mask
from zsad.data.index import DatasetIndex, load_index
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.prediction import Prediction
from zsad.inference.provenance import made_by
from zsad.results import heatmaps
from zsad.types import Category, Sample

DOCS = Path(__file__).resolve().parent
BACKBONE = "zsad-tiny"
METHODS = ("filo", "alfa", "faprompt", "kanoclip")
DEFECT = "leather", "crack"  # that they all look at
PAGE = "leather"  # category of the page
PICTURES = 12  # on the page
NORMAL = 4  # that it is calibrated with
SIDE = 224  # pixels of a picture
LINE = 22  # pixels of a heading
# The pictures that are in the window are there.
ALL_SEEN = (
    "[...document.querySelectorAll('.card img')].filter((i) =>"
    " i.getBoundingClientRect().top < innerHeight).every((i) => i.complete && i.naturalWidth > 0)"
)


def main() -> None:
    """Write ``side_by_side.jpg``, ``prediction_page.jpg`` and ``app.jpg`` into ``docs``."""
    index = load_index("synthetic")
    side_by_side(index).save(DOCS / "side_by_side.jpg", quality=85)
    if browser.find() is None:
        print(f"docs/prediction_page.jpg and docs/app.jpg stay as they are: {browser.MISSING}")
    else:
        page_of_predictions(index).save(DOCS / "prediction_page.jpg", quality=72)
        app_with_pictures(index).save(DOCS / "app.jpg", quality=70)


# -------------------------------------------------------------------------- side by side
def side_by_side(index: DatasetIndex) -> Image.Image:
    """The picture with the border of the true defect, then its heat map by every method."""
    category, defect = DEFECT
    sample = next(
        s
        for s in index.samples
        if (s.split, s.category, s.defect) == ("test", category, defect) and s.label
    )
    picture = read_image(sample.image, sample.crop)
    tiles = [("the true defect", outline(picture.copy(), read_mask(sample)))]
    for name in METHODS:
        one = loaded(name)
        found = of_method(one, picture, index.categories[category])
        assert found.values is not None  # none of these methods is without a map
        heat = heatmaps.overlay(picture, found.values, *heatmaps.span(found.values))
        tiles.append((heading(one, category), heat))
    return strip(tiles)


def heading(one: LoadedMethod, class_name: str) -> str:
    """The title of a method, and that it has no boxes where it asks for some."""
    boxes = made_by(one, class_name)["boxes"]  # {}: it asks for none
    without = " (no boxes)" if boxes.get("source") == "none" else ""
    return f"{registry.method(one.method.name).title}{without}"


def strip(tiles: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures in a row, each under its heading."""
    whole = Image.new("RGB", (len(tiles) * (SIDE + GAP) - GAP, SIDE + LINE), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(15)
    for i, (title, tile) in enumerate(tiles):
        left = i * (SIDE + GAP)
        draw.text((left + 2, 2), title, fill="black", font=font)
        whole.paste(tile.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, LINE))
    return whole


def loaded(name: str) -> LoadedMethod:
    """A method on the bundled backbone."""
    boxes = "grounding" in registry.method(name).defaults
    made: LoadedMethod = zsad.load_method(
        name, BACKBONE, device="cpu", overrides=[f"{name}.grounding=none"] if boxes else None
    )
    return made


def of_method(one: LoadedMethod, picture: Image.Image, known: Category) -> Prediction:
    """What a method says of a picture of a category."""
    return one.predict(picture, known.class_name, kinds=known.kind)[0]


# ---------------------------------------------------------------------------------- page
def page_of_predictions(index: DatasetIndex) -> Image.Image:
    """The page that ``zsad predict --calibrate`` leaves, on a desk and on a phone."""
    known = index.categories[PAGE]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        photos, normal = shown_and_good(index, place)
        zsad.predict(
            "faprompt", photos, known.class_name, calibrate=normal, out=place / "found",
            backbone=BACKBONE, device="cpu",
        )  # fmt: skip
        page = place / "found" / "index.html"
        with browser.Browser(place / "profile") as running:
            running.open(page, 1180, 760)
            running.until(ALL_SEEN)
            desk = opened(running.screenshot(place / "desk.png", top=0))
            running.open(page, 390, 844)
            running.until(ALL_SEEN)
            phone = opened(running.screenshot(place / "phone.png", top=0))
    return beside([desk], ImageOps.expand(phone, 2, "#57606c"))


def app_with_pictures(index: DatasetIndex) -> Image.Image:
    """The app of README's command, when it has scored pictures and been given good ones."""
    from tests.app import driving
    from zsad.app.settings import AppSettings

    known = index.categories[PAGE]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        chosen = [sorted(made.iterdir()) for made in shown_and_good(index, place)]
        (place / "app").mkdir()
        settings = AppSettings("winclip", BACKBONE, loading={"device": "cpu"})
        with (
            driving.served(settings, place / "app") as (address, _),
            browser.Browser(place / "profile") as running,
        ):
            running.open(f"{address}/", 1100, 910)
            running.until(driving.READY)
            for name, files in zip(("pictures", "good"), chosen):
                running.upload(f"#{name}", *files)
            driving.typed(running, "class-name", known.class_name)
            driving.score(running)
            running.until(driving.SHOWN)
            running.until(driving.READY)
            running.until(ALL_SEEN)
            return opened(running.screenshot(place / "app.png", top=0))


def shown_and_good(index: DatasetIndex, place: Path) -> tuple[Path, Path]:
    """Two folders below ``place``: the pictures of the page and of the app, and the normal ones
    that say from where on they are anomalous."""
    shown = splits.evaluated(index, PICTURES)[PAGE]
    good = splits.references(index, PAGE, NORMAL, 0)
    return saved(shown, place / "photos"), saved(good, place / "good")


def saved(samples: Sequence[Sample], folder: Path) -> Path:
    """A folder of pictures named by what is drawn into them."""
    folder.mkdir()
    for i, sample in enumerate(samples):
        name = sample.defect if sample.label else "good"
        read_image(sample.image, sample.crop).save(folder / f"{i:02}_{name}.png")
    return folder


if __name__ == "__main__":
    main()
