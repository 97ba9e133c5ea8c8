"""What the policy sees and is told, as tokens: cameras, absent ones, instructions."""
