"""Closed-loop rollouts, their statistics and reports; recording demonstrations is one of them."""
