"""YAML of `policy-data convert`."""
