"""The fast transport: gRPC as an ASGI app inside Envoy."""
