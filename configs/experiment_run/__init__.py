"""YAML of `policy-experiment run`."""
