"""``zsad app``: a page on this computer that scores the pictures one drops on it.

============  =====================================================================
``settings``  what the server is started with, and what a client may choose
``guard``     who may ask, how much at a time: the outermost layer of every request
``worker``    the one thread that holds the one loaded method
``uploads``   files of a request, and runs: what is kept to be looked at
``scoring``   a request to predictions, by :func:`zsad.inference.run.predict`
``server``    the addresses; ``described``: the page that lists them for people
============  =====================================================================

Needs the extra ``app`` (FastAPI, uvicorn, python-multipart).
"""
