"""Horngate's trainer."""
