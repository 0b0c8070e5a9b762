"""``python -m zsad.runtime part.zsad PATH...``: as ``zsad run``, with nothing else installed."""

from zsad.runtime.command import main

raise SystemExit(main())
