"""What language models know about categories: asked once, cached, checked, and read from files.

A run never asks a model.  ``zsad prompts generate`` does, and keeps every answer.

=================  =====================================================================
``kinds``          the kinds of texts, as methods bring them along; no torch
``bank``           the texts about categories, read from committed files; no torch
``checks``         reviews them: complete, consistent, of sensible length
``generation``     asks about categories and images, and writes files of the bank
``captions``       sentences about training images; ``vision``: those that a model wrote
``endpoint``       an OpenAI-compatible endpoint: retries, a rate, a budget
``request_shape``  what a request looks like, and what a refusal says about that
``replies``        bounds on what an endpoint may send
``answers``        the cache of answers
``parsing``        from an answer to descriptions
=================  =====================================================================
"""
