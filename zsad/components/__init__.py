"""What methods are built of: parts that more than one of them uses.

===================  =============================================================================
``losses``           focal, Dice and their sums
``optimizers``       how the parameters of a phase are stepped
``windows``          windows of patches: their grid, and how values are joined
``memory_bank``      how far a patch lies from normal ones
``clustering``       k-means from seeded draws
``projection``       points of many dimensions in a plane
``templates``        WinCLIP's states and templates; ``prompt_ensemble``: means over such prompts
``prompt_learning``  learned context and deep prompts
``stage_method``     maps of several stages; ``schemas``: groups of config keys that methods share
``reasons``          which reasons are shown, and which say the same
``released_state``   official checkpoints: their keys; ``released_prompts``: of learned prompts
===================  =============================================================================
"""
