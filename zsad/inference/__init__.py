"""Pictures of one's own: finding and reading them, scoring them, writing what was found.

======================  ======================================================================
``pictures``            files, folders and wildcards; reading ahead
``loaded_method``       one method on one backbone: what ``zsad.load_method`` returns
``calibration``         from which score and which value of a map on something is anomalous
``prediction``          what is said of a picture
``outputs``             maps, heat maps, masks and records on disk
``request``             class names, kinds, boxes and references as callers give them
``references``          which normal pictures a method compares with
``reference_bank``      the same, kept in a file
``known_pictures``      the references of a call, or those of a bank, encoded
``training_forward``    the loss terms of one batch, for a training loop of one's own
``settings``            KEY=VALUE of the backbone, the run and the method
``tiles``               how pictures are shown: whole, in tiles, in their own proportions
``picture_run``         from pictures to predictions
``run``                 the body of ``zsad.predict``
======================  ======================================================================
"""
