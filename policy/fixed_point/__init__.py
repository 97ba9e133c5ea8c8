"""Whether the loops of a model approach a fixed point, and what helps them to."""
