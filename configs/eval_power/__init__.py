"""YAML of `policy-eval power`."""
