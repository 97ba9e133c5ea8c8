"""YAML of `policy-data verify`."""
