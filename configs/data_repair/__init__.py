"""YAML of `policy-data repair`."""
