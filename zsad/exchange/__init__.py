"""Scores and maps by image, out of zsad and into it: what another program made is measured,
tabled and tested like a method of the house, and what a method of the house made goes elsewhere.

=============  =========================================================
``maps``       the files that hold scores and maps by image id; no torch
``imported``   scores and maps of another program, stored like cells
``measuring``  the figures of these
``exported``   scores and maps of methods here
=============  =========================================================
"""
