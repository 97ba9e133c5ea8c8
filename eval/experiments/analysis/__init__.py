"""From results to verdicts: the questions that an experiment's YAML asks, their tests, Holm."""
