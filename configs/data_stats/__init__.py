"""YAML of `policy-data stats`."""
