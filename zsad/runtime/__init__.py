"""Scores pictures by a package that ``zsad export`` wrote: numpy, Pillow and one runtime, no torch.

    import zsad.runtime
    part = zsad.runtime.load("part.zsad")
    found = part.predict("photo.png")
    found.image_score, found.anomalous, found.anomaly_map, found.regions

================  =====================================================================
``package_file``  one file: a description and a graph, checked when they are read
``graph``         the graph in ONNX Runtime or OpenVINO
``onnx_file``     what an ONNX model says of itself
``limits``        what a graph may be, before a runtime sees it
``pictures``      picture files to what the graph takes; ``tiles``: pieces of a picture
``enlarging``     a map at the size of its picture
``thresholds``    from where on something is anomalous
``regions``       the connected regions above a threshold; ``contours``: their borders
``boxes``         a detector's boxes: which count, where they lie, what they cover
``package``       all of it together
``command``       ``zsad run`` and ``python -m zsad.runtime``
================  =====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsad import names_on_demand

if TYPE_CHECKING:
    from zsad.runtime.package import Found, Package, load

__all__ = ["Found", "Package", "load"]

_PUBLIC = dict.fromkeys(__all__, "zsad.runtime.package")

__getattr__ = names_on_demand(__name__, _PUBLIC)
