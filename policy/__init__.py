"""The looped diffusion transformer and its training. Knows nothing of sockets or simulators."""
