"""Plans a sweep, runs it, and stores its cells.  In the order of a run:

=====================  ==========================================================================
``options``            the options of a run, written once for all who take them
``request``            what was asked for, layered and checked; no torch
``columns``            the methods, or rows of a protocol, that it comes to; no torch
``given``              checkpoints that the user gave: the file of every target; no torch
``auxiliary``          what trained columns learn from; no torch
``plan``               which cells there are, which are stored, what each depends on; no torch
``conditions``         what every row is computed under, said before it runs; no torch
``estimate``           what a planned run will take; no torch
``launch``             carries out a request here, or hands it to ``ray``
``ray``                the same on several machines
``sweep``              one backbone, one pass per dataset for all methods
``training``           ``zsad train``, and the checkpoints that a sweep finds or makes
``heads``              methods that are built, loaded and ready to score a dataset
``category``           one category: one encoder pass, every head; ``broken``: unreadable files
``outcome``            what one head made of one category
``example_collector``  picks the example pictures while images stream past
``recorder``           writes what became of cells: records, or failures
``lower_precision``    how far figures drift from those in float32
``manifest``           what a run leaves besides its cells; ``logs``: the log of a results folder
``progress``           what is shown during a run; ``timing``: where the seconds go
=====================  ==========================================================================
"""
