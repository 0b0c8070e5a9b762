"""Datasets: what is on disk, how it is read, how it becomes batches.

======================  ==================================================================
``catalog``             dataset definitions (``benchmarks/datasets/*.yaml``), groups, selection
``index``               from a definition and a folder to a sorted list of samples
``indexers``            one small function per layout on disk
``images``              files to pixels: images by content, masks by a stated rule
``transforms``          pixels to tensors: preprocessing, mask policy
``loader``              samples to batches, decoded by background threads
``mosaic``              training images made of four others
``check``, ``prepare``  what ``zsad data check`` and ``zsad data prepare`` do
======================  ==================================================================

Nothing but ``transforms`` and ``loader`` imports torch.
"""
