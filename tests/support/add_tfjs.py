"""Write a version's TF.js files beside its SavedModel, and list them in its manifest: add_tfjs.py VERSION_FOLDER."""

import hashlib
import json
import sys
from pathlib import Path

from horngate_trainer import tfjs

version = Path(sys.argv[1])
report = tfjs.write(version, version / "assets.extra/tfjs")
manifest = version / "assets.extra/horngate.json"
content = json.loads(manifest.read_bytes())
for name in report.files:
    file = f"assets.extra/tfjs/{name}"
    content["files"][file] = hashlib.sha256((version / file).read_bytes()).hexdigest()
manifest.write_text(json.dumps(content))
