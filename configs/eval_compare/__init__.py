"""YAML of `policy-eval compare`."""
