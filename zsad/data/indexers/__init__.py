"""One small function per layout on disk, registered by name (see ``base.INDEXERS``).

An indexer gets an :class:`~zsad.data.indexers.base.Indexing` and its options from the
dataset's YAML file.  It lists files and reads label files; it decodes no image.

==============  ==================================================================================
``base``        the registry, listings, pairing, the hold-out
``own_folder``  any folder whose names say what pictures are; ``words``: these names
``mask_names``  which mask belongs to which picture
``lists``       what lists of pictures share; ``csv_list``, ``coco``, ``prepared`` (``meta.json``)
``left_out``    files that are not pictures, and why
``folders``     folders of classes, pairs of folders, ``folder:`` datasets
``mvtec``       MVTec AD's layout and relatives; ``loco``: folders of masks; ``real_iad``
``tables``      VisA, DAGM, ELPV and other tables
``tiles``       KolektorSDD, AITEX: pictures in tiles; ``kolektor2``
==============  ==================================================================================
"""

from zsad.data.indexers import (
    coco,
    csv_list,
    folders,
    kolektor2,
    loco,
    mvtec,
    prepared,
    real_iad,
    tables,
    tiles,
)
from zsad.data.indexers.base import INDEXERS, Indexing, NotThisLayout, indexer

__all__ = [
    "INDEXERS",
    "Indexing",
    "NotThisLayout",
    "coco",
    "csv_list",
    "folders",
    "indexer",
    "kolektor2",
    "loco",
    "mvtec",
    "prepared",
    "real_iad",
    "tables",
    "tiles",
]
