"""The offline demo: procedural motion, a tiny network trained on it, and short videos of it."""
