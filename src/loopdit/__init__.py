"""Robot policies whose compute depth is a dial: train, export, serve and evaluate a looped DiT."""

__version__ = "0.1.0"
