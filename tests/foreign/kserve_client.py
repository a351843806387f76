"""KServe's own InferenceRESTClient, over both of its protocols; prints what it got. Arguments: address, images (.npy).

Its package imports Kubernetes' client, and its modules import what only its servers need: these are stood in for. What
sends requests and reads answers is KServe's own code.
"""

import asyncio
import importlib.metadata
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda *_, **__: None})


for name in ("pandas", "psutil", "pydantic", "fastapi", "fastapi.responses", "cloudevents", "cloudevents.conversion",
             "cloudevents.http"):  # fmt: skip
    sys.modules[name] = _StandIn(name)
found = next(file for file in importlib.metadata.files("kserve") or () if file.name == "inference_client.py")
package = ModuleType("kserve")
package.__path__ = [str(Path(str(found.locate())).parent)]
sys.modules["kserve"] = package

from kserve.inference_client import InferenceRESTClient, RESTConfig  # noqa: E402
from kserve.protocol.infer_type import InferInput, InferRequest, RequestedOutput  # noqa: E402


async def main(address: str, images: np.ndarray) -> dict[str, Any]:
    """Ask everything that the client can ask of a model."""
    got: dict[str, Any] = {}
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    got["live"] = await client.is_server_live(address)
    got["ready"] = await client.is_server_ready(address)
    got["model ready"] = await client.is_model_ready(address, "mnist")
    for binary in (False, True):
        given = InferInput("images", list(images.shape), "UINT8")
        given.set_data_from_numpy(images, binary_data=binary)
        outputs = [RequestedOutput("classes"), RequestedOutput("probabilities", {"binary_data": binary})]
        request = InferRequest("mnist", [given], request_id="k-1", request_outputs=outputs)
        answer = await client.infer(address, request, model_name="mnist")
        by_name = {each.name: each.as_numpy() for each in answer.outputs}
        got[f"binary {binary}"] = [
            answer.id, by_name["classes"].tolist(), by_name["probabilities"].astype(np.float32).tobytes().hex()
        ]  # fmt: skip
    try:
        await client.infer(address, {"inputs": []}, model_name="nope")
    except Exception as error:  # noqa: BLE001 - KServe's
        got["error"] = str(error)
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    answer = await v1.infer(address, {"instances": images.tolist()}, model_name="mnist")
    got["v1"] = [each["classes"] for each in answer["predictions"]]
    await client.close()
    await v1.close()
    return got


print(json.dumps(asyncio.run(main(sys.argv[1], np.load(sys.argv[2])))))
