"""Scores and maps by image, out of zsad and into it: what another program made is measured,
tabled and tested like a method of the house, and what a method of the house made goes elsewhere."""
