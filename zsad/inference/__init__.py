"""Pictures of one's own: finding and reading them, scoring them, writing what was found.

====================  ============================================================================
``options``           what can be asked for; no torch
``settings``          KEY=VALUE of the backbone, the run and the method; no torch
``run``               the body of ``zsad.predict``
``loading``           the body of ``zsad.load_method``
``loaded_method``     one method on one backbone: what that returns
``pictures``          files, folders and wildcards; reading ahead
``request``           class names, kinds, boxes and references as callers give them
``tiles``             how pictures are shown: whole, in tiles, in their own proportions
``picture_run``       from pictures to predictions
``references``        which normal pictures a method compares with; ``reference_bank``: in a file
``known_pictures``    the references of a call, or those of a bank, encoded
``calibration``       from which score and which value of a map on something is anomalous
``prediction``        what is said of a picture; ``regions``: the regions of its map
``provenance``        what made a prediction
``outputs``           maps, heat maps, masks and records on disk; ``handover``: for other programs
``page``              all pictures to look at; ``prompts_page``: by single prompts
``training_forward``  the loss terms of one batch, for a training loop of one's own
====================  ============================================================================
"""
