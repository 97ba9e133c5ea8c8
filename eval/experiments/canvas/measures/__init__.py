"""What is asked of a trained canvas model besides its errors."""
