"""MVFA-AD: adapters whose outputs are mixed back into the image encoder's stream."""
