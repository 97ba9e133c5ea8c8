"""YAML of `make demo` (python -m loopdit.eval.demo)."""
