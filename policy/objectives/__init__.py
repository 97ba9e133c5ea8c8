"""What the model learns to say about a noisy action chunk, and how a chunk is sampled from that."""
