"""Bundle TensorFlow.js for the console when a wheel is built: a hook of hatch's.

The repository holds no copy of it: npm brings the versions of ``package-lock.json``, each checked by its hash, and
esbuild makes one file of them. Where there is no npm, or no way to its registry, the wheel is built without, and the
console says how to get it.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = "server/tfjs"
INTO = "horngate_server/transports/http/console"
SOURCES = ("package.json", "package-lock.json", "entry.js")
NPM = ("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries", "0", "--fetch-timeout", "30000")
ESBUILD = ("node_modules/.bin/esbuild", "entry.js", "--bundle", "--minify", "--format=esm", "--legal-comments=eof")
WASM = ("tfjs-backend-wasm.wasm", "tfjs-backend-wasm-simd.wasm")
AT_MOST_S = 90


class Bundle(BuildHookInterface[Any]):
    """Puts the bundle, and the WebAssembly that it loads, beside the console's files in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make it, unless the build is an editable one."""
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="horngate-tfjs-")
        try:
            made = bundle(Path(self.root, HERE), Path(self._folder.name))
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            self.app.display_warning(f"the console is built without TensorFlow.js: {said.strip()[:300]}")
            return
        build_data["force_include"].update({str(file): f"{INTO}/{file.name}" for file in made})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatch's
        """Remove what was only for the build."""
        if version != "editable":
            self._folder.cleanup()


def bundle(sources: Path, folder: Path) -> list[Path]:
    """Make the bundle in a folder; return its files.

    Raises:
        OSError, subprocess.SubprocessError: there is no npm, or it failed.
    """
    for name in SOURCES:
        shutil.copy(sources / name, folder)
    for command in (NPM, (*ESBUILD, "--outfile=tfjs.js")):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=AT_MOST_S)
    wasm = folder / "node_modules/@tensorflow/tfjs-backend-wasm/dist"
    return [folder / "tfjs.js", *(wasm / name for name in WASM)]
