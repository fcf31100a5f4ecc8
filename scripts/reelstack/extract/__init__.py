"""From frames to features: engine, devices, parts."""
