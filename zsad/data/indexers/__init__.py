"""One small function per layout on disk, registered by name (see ``base.INDEXERS``).

An indexer gets an :class:`~zsad.data.indexers.base.Indexing` and its options from the
dataset's YAML file.  It lists files and reads label files; it decodes no image.
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
