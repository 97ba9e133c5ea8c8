"""The paper's experiments and ours, declared in YAML: run, stored, tested, reported."""
