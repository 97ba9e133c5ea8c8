"""YAML of `policy-serve`."""
