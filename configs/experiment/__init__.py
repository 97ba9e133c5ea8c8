"""One YAML for each experiment: see `loopdit.eval.experiments.experiment`."""
