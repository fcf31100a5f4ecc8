"""Versions of the stages before extraction; raise one to have its stage redone everywhere.

Editing the library re-runs nothing by itself. Models have their own versions in the registry.
"""

PROBE = 1
REENCODE = 1
