"""Containers, for peers that come as such: with docker or podman, whichever is there."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import NoReturn


def engine() -> str | None:
    """Return docker or podman; None where there is neither."""
    return shutil.which("docker") or shutil.which("podman")


def pulled(program: str, image: str) -> bool:
    """Whether an image is here."""
    return subprocess.run([program, "image", "inspect", image], capture_output=True, check=False).returncode == 0


def become(image: str, folder: str, inside: str, command: Sequence[str]) -> NoReturn:
    """Replace this process by a container on the host's network, in which a folder is seen as ``inside``."""
    program = engine()
    if program is None:
        raise SystemExit("there is neither docker nor podman")
    options = ["--rm", "--init", "--network", "host", "--volume", f"{folder}:{inside}:ro"]
    os.execv(program, [program, "run", *options, image, *command])
