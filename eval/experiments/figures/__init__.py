"""Plots of experiments: each one's own, and the paper's seven figures beside our data."""
