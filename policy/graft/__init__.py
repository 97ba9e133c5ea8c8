"""A looped graft on CogVideoX, a video diffusion transformer, and the robot policy made of it."""
