"""Stored results, and what is made of them without running anything.

======================  ======================================================================
``records``             one stored result, and the key that it is stored under
``store``               one record per cell, written atomically; scores, failures, manifest
``examples``            example pictures and curves of a cell, for the report
``aggregate``           means, deviations, ranks: the only mean of zsad
``document``            the JSON document of a run
``published``           the figures that papers print
``heatmaps``            heat maps over images, and masks at a threshold
======================  ======================================================================
"""
