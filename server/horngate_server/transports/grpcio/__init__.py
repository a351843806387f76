"""The reference transport: grpcio's asyncio server."""
