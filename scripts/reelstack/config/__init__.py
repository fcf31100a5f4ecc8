"""The configuration: validated against a closed schema, with defaults and models filled in."""

from reelstack.config.config import Config, load_config
from reelstack.config.sets import FeatureSet

__all__ = ["Config", "FeatureSet", "load_config"]
