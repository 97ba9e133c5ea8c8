"""Bodies as graphs: what a compiled MuJoCo model says of its own morphology."""
