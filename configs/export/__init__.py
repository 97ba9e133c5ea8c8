"""YAML of `policy-export`."""
