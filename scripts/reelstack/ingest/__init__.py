"""Finding videos, assigning them to shards, probing them."""
