"""Tasks made in code, all of chance from a seed."""
