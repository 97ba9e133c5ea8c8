"""YAML of `scripts/bench_decoders.py`."""
