"""YAML of `policy-doctor`."""
