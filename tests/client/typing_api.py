"""The public interface as users write it; never run, only type-checked."""

from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from horngate_client import (
    AsyncClient,
    Client,
    Explanation,
    ModelMetadata,
    Overloaded,
    Prediction,
    RetryPolicy,
    ServerInfo,
    TlsConfig,
)


def blocking(image: NDArray[np.uint8]) -> float | None:
    """Use the blocking client."""
    options = RetryPolicy(attempts=3)
    with Client(["a:8001", "b:8001"], timeout=2, retry=options, tls=TlsConfig(ca="ca.pem"), token="t") as client:
        assert_type(client, Client)
        assert_type(client.predict(image), Prediction)
        assert_type(client.explain(image, [1]), Explanation)
        assert_type(client.predict([Path("a.png"), "b.png", image], resize=True).label, int)
        assert_type(client.predict([[0.0, 1.0]], timeout=1).classes, NDArray[np.int64])
        client.infer({"x": image, "y": [1, 2]}, outputs=["z"])["z"].tolist()
        assert_type(client.model(refresh=True), ModelMetadata)
        assert_type(client.server(), ServerInfo)
        try:
            assert_type(client.ready(), bool)
        except Overloaded as exc:
            return exc.retry_after
    return None


async def awaited(image: NDArray[np.uint8]) -> None:
    """Use the client for asyncio."""
    async with AsyncClient() as client:
        assert_type(client, AsyncClient)
        assert_type(await client.predict(image), Prediction)
        assert_type(await client.ready(), bool)
