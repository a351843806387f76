"""What a call means: inference, health, reflection, metadata, and the control of models."""
