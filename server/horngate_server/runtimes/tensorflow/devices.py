"""Which device TensorFlow computes on, and why there."""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from horngate_server.core.device import Device
from horngate_server.core.errors import DeviceUnavailable


def choose(found: Sequence[tuple[str, str]], wanted: str, complaints: Sequence[str]) -> Device:
    """Say which device a session computes on.

    Args:
        found: the session's devices, as (name, kind).
        wanted: "auto", "cpu" or "gpu".
        complaints: what TensorFlow logged while it looked for devices.

    Raises:
        DeviceUnavailable: a GPU is wanted and there is none, with the reason.
    """
    for name, kind in found:
        if kind == "GPU":
            return Device("GPU", name, "TensorFlow found it")
    if wanted == "cpu":
        return Device("CPU", "CPU:0", "--device cpu")
    present, reason = _why_no_gpu(complaints)
    if wanted == "gpu":
        raise DeviceUnavailable(f"--device gpu, but TensorFlow can use none: {reason}")
    return Device("CPU", "CPU:0", reason, surprise=present)


# --- private ------------------------------------------------------------------------------------------


def _why_no_gpu(complaints: Sequence[str]) -> tuple[bool, str]:
    """Explain why there is no GPU: (whether the machine has one, the reason)."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return False, "no NVIDIA driver on this machine"
    if failed or not count.value:
        return False, "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES can hide it)"
    with suppress(PackageNotFoundError):
        version("tensorflow-cpu")
        return True, "this TensorFlow is built for the CPU only: pip install 'horngate[server-gpu]'"
    said = f"; it says: {complaints[-1]}" if complaints else ""
    return True, f"TensorFlow could not use it (pip install 'horngate[server-gpu]' brings CUDA's libraries){said}"
