"""Trains the bundled backbone ``zsad-tiny`` from nothing on generated pictures."""
