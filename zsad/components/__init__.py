"""What methods are built of: parts that more than one of them uses.

=================  ===========================================================================
module             holds
=================  ===========================================================================
templates          state phrases and templates of the compositional prompt ensemble
prompt_learning    learned context words, their meta-net, deep text tokens
released_prompts   released ``prompt_learner`` dictionaries, read and checked
stage_method       a method that compares several stages with one state prompt ensemble
schemas            groups of keys that several configs hold (torch-free)
=================  ===========================================================================
"""
