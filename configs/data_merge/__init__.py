"""YAML of `policy-data merge`."""
