"""YAML of `policy-train graft`."""
