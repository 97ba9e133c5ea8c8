"""YAML of `policy-bench transport`."""
