"""YAML of `policy-data view`."""
