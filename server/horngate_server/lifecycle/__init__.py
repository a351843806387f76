"""Versions come and go: found on disk, loaded, proved, verified, routed, drained."""
