"""Start, wire, stop: the only package that builds things."""
