#!/bin/sh
# curl alone: 784 bytes of pixels, as they are, behind the JSON that says so.    curl.sh http://HOST:PORT PIXELS
set -eu
json='{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "parameters": {"binary_data_size": 784}}],
       "outputs": [{"name": "classes"}]}'
{ printf %s "$json"; cat "$2"; } |
    curl --fail-with-body --silent --show-error --data-binary @- \
        --header "Inference-Header-Content-Length: ${#json}" "$1/v2/models/mnist/infer"
