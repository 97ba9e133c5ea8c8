"""YAML of `policy-train`."""
