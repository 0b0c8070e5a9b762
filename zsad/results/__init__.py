"""Stored results and what is made of them.  ``aggregate``: the only mean of zsad."""
