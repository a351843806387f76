"""Horngate's client: a PNG in, a digit out. `pip install horngate[images]`, then: python_sync.py HOST:PORT IMAGE."""

import sys

from horngate_client import Client

address, image = sys.argv[1:]
with Client(address) as client:  # a client is for many calls, from any number of threads
    prediction = client.predict(image)
print(prediction.label)
