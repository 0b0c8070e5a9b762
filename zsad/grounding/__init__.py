"""Boxes from open-vocabulary detectors: one small interface, a cache, and two detectors.

A *detector* is one function, ``(image, phrases) -> Boxes``.  A method says what it wants
(:meth:`zsad.method.Method.box_request`), :mod:`zsad.grounding.provider` finds out where boxes can
come from, and its ``BoxProvider`` answers for samples or pictures.  Nothing heavy is imported
before a picture has to be looked at; what a plan asks (:mod:`zsad.grounding.weight_files`) needs
no torch.
"""
