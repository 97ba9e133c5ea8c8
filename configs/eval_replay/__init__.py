"""YAML of `policy-eval replay`."""
