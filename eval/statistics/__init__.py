"""What outcomes on paired seeds show, and what they do not: pure functions of numbers."""
