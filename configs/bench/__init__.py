"""YAML of `policy-bench`."""
