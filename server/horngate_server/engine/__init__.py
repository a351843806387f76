"""The way of a request through one model: validated, queued, batched, run."""
