"""YAML of `policy-experiment list`."""
