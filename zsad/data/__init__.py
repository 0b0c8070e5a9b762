"""Datasets: what is on disk, how it is read, how it becomes batches.

======================  ==================================================================
``definition``          what a definition says: categories, variants, layouts
``catalog``             dataset definitions (``benchmarks/datasets/*.yaml``), groups, selection
``folder_dataset``      a definition for a user's own folder, made from what lies in it
``index``               from a definition and a folder to a sorted list of samples
``indexers``            one small function per layout on disk
``splits``              which samples are evaluated, trained on or referred to
``provenance``          remembers the content of the files that results were computed from
``contents``            pictures known by their content, so that a copy is known again
``images``              files to pixels: images by content, masks by a stated rule
``transforms``          pixels to tensors: preprocessing, mask policy
``loader``              samples to batches, decoded by background threads
``synthetic``           the generated dataset: its pictures are drawn when they are read
``mosaic``              training images made of four others
``check``, ``prepare``  what ``zsad data check`` and ``zsad data prepare`` do
======================  ==================================================================

Nothing but ``transforms`` and ``loader`` imports torch.
"""
