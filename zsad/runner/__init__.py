"""Plans a sweep, runs it, and stores its cells.  In the order of a run:

======================  ======================================================================
``options``             the options of a run, written once for all who take them
``request``             what was asked for, layered and checked; no torch
``given``               checkpoints that the user gave: the file of every target; no torch
``plan``                which cells there are, which are stored, what each depends on; no torch
``conditions``          what every row is computed under, said before it runs; no torch
``launch``              carries out a request here, or hands it to ``ray``
``ray``                 the same on several machines: driver, worker, cluster, shards
``sweep``               one backbone, one pass per dataset for all methods
``training``            ``zsad train``, and the checkpoints that a sweep finds or makes
``heads``               methods that are built, loaded and ready to score a dataset
``category``            one category: one encoder pass, every head
``example_collector``   picks the example pictures while images stream past
``recorder``            writes what became of cells: records, or failures
``manifest, logs``      what a run leaves besides its cells
``progress, timing``    what is shown meanwhile, and where the seconds go
======================  ======================================================================
"""
