"""Stored results, and what is made of them without running anything.

==============  ======================================================================
``records``     one stored result, and the key that it is stored under
``folder``      the lock of a results folder, and what is said of a full disk
``store``       one record per cell, written atomically; scores, failures, manifest;
                ``image_scores``: those of a record, checked to be of its images
``inventory``   what a folder holds, column by column, and how to take something out
``identity``    what a figure is of: a method and its configuration
``weights``     what a record says of the weights behind its figures
``aggregate``   means, deviations, ranks: the only mean; ``group_means``: over domains
``document``    the JSON document of a run
``published``   the figures that papers print
``conditions``  when a measured figure may be called equal to a printed one
``effect``      rows of an ablation whose switch changed nothing
``examples``    example pictures and curves of a cell, for the report
``gallery``     small pictures and maps of all pictures of a category
``pixels``      counts of the pixels of every image
``heatmaps``    heat maps over images, and masks at a threshold
==============  ======================================================================
"""
