"""The wire protocols: bytes to `request.InferenceRequest`, `request.InferenceResult` to bytes. Pure, no copies."""
