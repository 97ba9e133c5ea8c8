"""Canvas models in experiments: how they are trained, measured and varied."""
