"""Datasets: what is on disk, how it is read, how it becomes batches.

==================  ================================================================================
``definition``      what a definition says: categories, variants, layouts
``catalog``         dataset definitions (``benchmarks/datasets/*.yaml``), groups, selection
``folder_dataset``  a definition for a user's own folder, made from what lies in it
``index``           from a definition and a folder to a sorted list of samples
``indexers``        one small function per layout on disk
``account``         what every file of a user's own was taken for
``splits``          which samples are evaluated, trained on or referred to
``provenance``      remembers the content of the files that results were computed from
``contents``        pictures known by their content, so that a copy is known again
``images``          files to pixels: images by content, masks by a stated rule
``picture_file``    a picture file is read whole, once; ``pixel_values``, ``deep_colour``: deep ones
``plausible``       values and masks that cannot be right; ``lossy``: masks that were compressed
``ignored``         parts of pictures that are not looked at
``transforms``      pixels to tensors: preprocessing, mask policy
``loader``          samples to batches, decoded by background threads
``calibration``     the pictures that int8 is calibrated on
``synthetic``       the generated dataset: its pictures are drawn when they are read
``described``       pictures made of others: ``mosaic``: of four; ``augment``: changed at random
``mixed_training``  bases of methods that train on these
``own_outputs``     what zsad wrote itself is not taken for a picture
``check``           ``zsad data check``; so ``prepare``, and ``coco`` for ``zsad data boxes``
``archives``        downloaded archives, read within bounds; ``lzma_files``: those packed by LZMA
==================  ================================================================================

Torch is imported by ``transforms``, ``loader``, ``calibration`` and ``mixed_training`` alone.
"""
