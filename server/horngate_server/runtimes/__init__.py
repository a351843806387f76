"""What runs a model, and what the process has for it."""
