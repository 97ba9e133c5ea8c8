"""The spatiotemporal canvas of the paper: modalities on one grid, looped blocks over it."""
