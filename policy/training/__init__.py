"""Behaviour cloning of a looped policy from an episode store."""
