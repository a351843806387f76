"""Everything that is not gRPC."""
