"""Horngate's client."""
