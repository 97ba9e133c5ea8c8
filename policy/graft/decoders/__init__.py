"""What reads robot actions from a video transformer."""
