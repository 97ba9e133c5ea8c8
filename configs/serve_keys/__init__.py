"""YAML of `policy-serve keys`."""
