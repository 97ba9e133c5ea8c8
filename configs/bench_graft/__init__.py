"""YAML of `scripts/bench_graft.py`."""
