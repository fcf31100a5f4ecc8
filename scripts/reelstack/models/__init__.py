"""The model families, their registry and their weights."""
