"""Boxes from open-vocabulary detectors: one small interface, a cache, and two detectors.

A *detector* is one function, ``(image, phrases) -> Boxes``.  A method says what it wants
(:meth:`zsad.method.Method.box_request`), :func:`provider` finds out where boxes can come from,
and :class:`BoxProvider` answers for samples or pictures.  Nothing heavy is imported before a
picture has to be looked at.
"""

from zsad.grounding.cache import BoxCache
from zsad.grounding.interface import Detector, DetectorOptions, Handle
from zsad.grounding.provider import BoxProvider, provider

__all__ = ["BoxCache", "BoxProvider", "Detector", "DetectorOptions", "Handle", "provider"]
