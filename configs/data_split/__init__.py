"""YAML of `policy-data split`."""
