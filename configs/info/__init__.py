"""YAML of `policy-data info`."""
