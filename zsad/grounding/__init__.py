"""Boxes from open-vocabulary detectors: one small interface, a cache, and two detectors.

A *detector* is one function, ``(image, phrases) -> Boxes``.  A method says what it wants
(:meth:`zsad.method.Method.box_request`), :mod:`zsad.grounding.provider` finds out where boxes can
come from, and its ``BoxProvider`` answers for samples or pictures.  Nothing heavy is imported
before a picture has to be looked at; what a plan asks (:mod:`zsad.grounding.weight_files`) needs
no torch.

=====================  ===================================================================
``interface``          what a detector is, and how one is found by name
``provider``           where boxes come from in a run, or why from nowhere
``file``               boxes that were found before, as a JSON file
``cache``              detections on disk
``weight_files``       which file holds a detector's weights; no torch
``transformers_dino``  the default, by transformers; ``official_state``: its authors' file
``grounding_dino``     Grounding DINO by groundingdino-py
``dino``               what both share: the picture that is seen, how an answer is read
=====================  ===================================================================
"""
