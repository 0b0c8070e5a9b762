"""A method for the tests of prompt kinds: CLIP with a language model's words about wear."""
