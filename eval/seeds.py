"""Which seeds are for what: training demonstrations and held-out evaluation never share one."""

# Demonstrations use seeds below, evaluation those from here on.
FIRST_HELD_OUT_SEED = 1_000_000
