"""Bytes on the wire: gRPC and HTTP servers, and who is let in."""
