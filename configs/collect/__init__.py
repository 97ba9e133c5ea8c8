"""YAML of `policy-collect`."""
