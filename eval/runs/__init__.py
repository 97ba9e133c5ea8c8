"""Many rollouts: the plan, the workers, the journal that survives a crash, the results."""
