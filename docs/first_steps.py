# %% [markdown]
# # First steps in a notebook
#
# Everything here runs with what comes along: pictures that zsad generates, and `zsad-tiny`, a
# small CLIP that proves nothing about real ones. `python -m docs.notebook` makes this notebook from
# `docs/first_steps.py`, outputs included.

# %%
from pathlib import Path

import zsad
from zsad import tables
from zsad.data.images import read_image
from zsad.data.index import load_index

zsad.list_methods()[:5]

# %% [markdown]
# ## A picture with a flaw

# %%
leather = [s for s in load_index("synthetic").samples if s.category == "leather"]
flawed = next(s for s in leather if s.label and s.mask)
picture = read_image(flawed.image)
print(flawed.defect, picture.size)

# %% [markdown]
# ## Where is it?
#
# A prediction shows itself: the heat map, the score, and the reasons.

# %%
method = zsad.load_method("winclip", backbone="zsad-tiny", device="cpu")
(found,) = method.predict([picture], class_name="leather")
print(f"score {found.image_score:.2f}, map {found.anomaly_map.shape}")
found.overlay(picture)

# %% [markdown]
# `to_dict()` is the line that `zsad predict` prints, `save(FILE)` writes the heat map, `plot()`
# draws it with matplotlib.

# %%
said = found.to_dict()
print(f"score {said['image_score']:.2f}", [reason["text"] for reason in said["explanations"]][:2])

# %% [markdown]
# ## Pictures of a folder
#
# `zsad.predict` scores them all and returns a list; with `out=` it writes heat maps, masks
# and a page. `zsad.predict_iter` takes the same and yields one after the other.

# %%
photos = Path("photos")
photos.mkdir(exist_ok=True)
for n, sample in enumerate([s for s in leather if not s.label][:1] + [flawed]):
    read_image(sample.image).save(photos / f"{n}.png")
predictions = zsad.predict(
    "winclip", photos, "leather", backbone="zsad-tiny", device="cpu", out="found"
)
[(Path(p.path).name, round(p.image_score, 2)) for p in predictions]

# %%
predictions[-1]

# %% [markdown]
# ## Methods side by side
#
# `zsad.bench` stores one record per method and category; tables come from the records.

# %%
document = zsad.bench(
    "clip,maskclip",
    "synthetic",
    backbone="zsad-tiny",
    device="cpu",
    limit=2,
    results="results",
)
document["counters"]["images"], len(document["cells"]), document["failed"]

# %%
pages = tables.pages("results")
pages[0]

# %%
frame = pages.frame()
frame = frame[(frame["row"] == "synthetic") & (frame["metric"] == "pixel_auroc")]
frame[["method", "metric", "value"]].round(1)
