"""Bytes to requests and results to bytes: one module or package per protocol, pure."""
