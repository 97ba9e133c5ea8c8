"""What numbers show and what they do not: outcomes on paired seeds, losses over seeds. Pure."""
