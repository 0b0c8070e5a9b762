"""Pictures of one's own: finding and reading them, scoring them, writing what was found.

======================  ======================================================================
``pictures``            files, folders and wildcards; reading ahead
``loaded_method``       one method on one backbone: what ``zsad.load_method`` returns
``calibration``         from which score and which value of a map on something is anomalous
``request``             what a caller says of pictures: names, kinds, boxes, references
``picture_run``         what one request to score pictures goes through
``prediction``          what is said of a picture
``outputs``             maps, heat maps, masks and records on disk
``run``                 the body of ``zsad.predict``
======================  ======================================================================
"""
