"""The vocabulary that all other packages share. No input and no output."""
