"""Where this machine keeps what can be made again: the cache folder of zsad."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from zsad.io.names import at_home


def cache_folder() -> Path:
    """``$ZSAD_CACHE``, else zsad's folder in the user's cache."""
    own = os.environ.get("ZSAD_CACHE")
    return at_home(own) if own else Path(platformdirs.user_cache_dir("zsad"))
