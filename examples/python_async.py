"""The same with asyncio, several images at once: python_async.py HOST:PORT IMAGE..."""

import asyncio
import sys

from horngate_client import AsyncClient


async def main(address: str, images: list[str]) -> None:
    """Classify all images at the same time: the server computes them together."""
    async with AsyncClient(address) as client:
        for prediction in await asyncio.gather(*map(client.predict, images)):
            print(prediction.label)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
