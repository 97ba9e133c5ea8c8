"""YAML of `python -m loopdit.eval.morphology.experts`."""
