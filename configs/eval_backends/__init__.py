"""YAML of `policy-eval backends`."""
