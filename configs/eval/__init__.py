"""YAML of `policy-eval`."""
