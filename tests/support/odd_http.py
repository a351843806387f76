"""Requests that are no HTTP, or hardly: what scanners, mistaken clients and HTTP's corners send to an HTTP port."""

import gzip

INFER = b"POST /v2/models/mnist/infer HTTP/1.1\r\nhost: x\r\n"
HOST = b" HTTP/1.1\r\nhost: x\r\n"


def json(body: bytes) -> bytes:
    """An inference request with this body."""
    return INFER + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def tensor(data: bytes = b"[0]", shape: bytes = b"[1,28,28]", more: bytes = b"") -> bytes:
    """One with these numbers, as they are written."""
    fields = b'"name":"images","datatype":"UINT8","shape":%b,"data":%b' % (shape, data)
    return json(b'{"inputs":[{%b}]%b}' % (fields, more))


PREDICT = b"POST /v1/models/mnist:predict HTTP/1.1\r\nhost: x\r\n"


def predict(body: bytes, headers: bytes = b"") -> bytes:
    """A request of TensorFlow Serving's REST API with this body."""
    return PREDICT + headers + b"content-length: %d\r\n\r\n%b" % (len(body), body)


GZIP = b"content-encoding: gzip\r\n"
HUGE = b"1" + b"0" * 400
ZEROS = b"0," * 783

ODD: dict[str, bytes] = {
    "options-star": b"OPTIONS *" + HOST + b"\r\n",
    "connect": b"CONNECT x:443" + HOST + b"\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "h2c": b"GET /livez" + HOST + b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAM\r\n\r\n",
    "websocket": b"GET /livez" + HOST + b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 200,
    "zeros": bytes(100),
    "lines": b"\r\n\r\n\r\n",
    "words": b"hello\r\n\r\n",
    "absolute": b"GET http://evil/livez" + HOST + b"\r\n",
    "absolute-v2": b"GET http://evil/v2/models/mnist" + HOST + b"\r\n",
    "no-path": b"GET " + HOST + b"\r\n",
    "relative": b"GET livez" + HOST + b"\r\n",
    "query-alone": b"GET ?" + HOST + b"\r\n",
    "no-host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two-hosts": b"GET /livez" + HOST + b"host: y\r\n\r\n",
    "http-9.9": b"GET /livez HTTP/9.9\r\nhost: x\r\n\r\n",
    "two-slashes": b"GET //v2" + HOST + b"\r\n",
    "dots": b"GET /v2/../livez" + HOST + b"\r\n",
    "nul": b"GET /v2/models/%00" + HOST + b"\r\n",
    "not-utf-8": b"GET /v2/models/%ff%fe" + HOST + b"\r\n",
    "surrogate": b"GET /v2/models/%ed%a0%80" + HOST + b"\r\n",
    "no-escape": b"GET /v2/models/%zz" + HOST + b"\r\n",
    "slash": b"GET /v2/models/a%2Fb" + HOST + b"\r\n",
    "line-end": b"GET /v2/models/a%0d%0ax:y" + HOST + b"\r\n",
    "version": b"GET /v2/models/mnist/versions/99999999999999999999999" + HOST + b"\r\n",
    "superscript": b"GET /v2/models/mnist/versions/%C2%B2" + HOST + b"\r\n",
    "other-digits": b"GET /v2/models/mnist/versions/%F0%9D%9F%98" + HOST + b"\r\n",
    "bytes-in-path": b"GET /v2?x=\xff" + HOST + b"\r\n",
    "nul-in-method": b"G\x00T /livez" + HOST + b"\r\n",
    "method": b"FOO /v2" + HOST + b"\r\n",
    "space-in-header": b"GET /livez HTTP/1.1\r\nhost : x\r\n\r\n",
    "folded-header": b"GET /livez" + HOST + b"x: a\r\n b\r\n\r\n",
    "long-path": b"GET /" + b"a" * 70_000 + HOST + b"\r\n",
    "long-header": INFER + b"x: " + b"a" * 70_000 + b"\r\n\r\n",
    "pipelined": (b"GET /livez" + HOST + b"\r\n") * 50,
    "length-negative": INFER + b"content-length: -1\r\n\r\n",
    "length-10^400": INFER + b"content-length: " + HUGE + b"\r\n\r\n",
    "length-10^5000": INFER + b"content-length: 1" + b"0" * 5000 + b"\r\n\r\n",
    "length-underscore": INFER + b"content-length: 1_0\r\n\r\n",
    "two-lengths": INFER + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
    "length-and-chunks": INFER + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks-broken": INFER + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "coding-unknown": INFER + b"transfer-encoding: gzip\r\n\r\n",
    "compressed": INFER + b"content-encoding: br\r\ncontent-length: 1\r\n\r\n1",
    "no-body": INFER + b"\r\n",
    "priority": INFER + b"horngate-priority: \xff\r\n" + tensor()[len(INFER) :],
    "traceparent": INFER + b"traceparent: \xff\xfe\r\n" + tensor()[len(INFER) :],
    "authorization": INFER + b"authorization: \xff\r\n" + tensor()[len(INFER) :],
    "json-empty": json(b""),
    "json-cut": json(b"{"),
    "json-not-text": json(b"\xff\xfe"),
    "json-null": json(b"null"),
    "json-number": json(HUGE),
    "json-5000-digits": json(b"1" * 5000),
    "json-deep": json(b"[" * 100_000),
    "data-10^400": tensor(b"[" + ZEROS + HUGE + b"]"),
    "data-1e400": tensor(b"[" + ZEROS + b"1e400]"),
    "data-nan": tensor(b"[" + ZEROS + b"NaN]"),
    "shape-10^400": tensor(shape=b"[" + HUGE + b"]"),
    "shape-negative": tensor(shape=b"[-1]"),
    "shape-overflow": tensor(shape=b"[9223372036854775807,9223372036854775807]"),
    "id-surrogate": tensor(b"[" + ZEROS + b"0]", more=b',"id":"\\ud800"'),
    "parameter-10^400": tensor(b"[" + ZEROS + b"0]", more=b',"parameters":{"priority":' + HUGE + b"}"),
    "outputs": tensor(more=b',"outputs":[1]'),
    "v1-version": b"GET /v1/models/mnist/versions/99999999999999999999999" + HOST + b"\r\n",
    "v1-other-digits": b"GET /v1/models/mnist/versions/%F0%9D%9F%98" + HOST + b"\r\n",
    "v1-label": b"GET /v1/models/mnist/labels/%00%ff" + HOST + b"\r\n",
    "v1-host": predict(b"{}").replace(b"host: x", b"host: x/v2/health/live?"),
    "v1-cut": predict(b'{"instances":['),
    "v1-deep": predict(b'{"instances":' + b"[" * 100_000),
    "v1-objects": predict(b'{"instances":[' + b"{}," * 10_000 + b"{}]}"),
    "v1-surrogate": predict(b'{"signature_name":"\\ud800","instances":[1]}'),
    "bomb": json(gzip.compress(bytes(16 << 20))).replace(b"content-length", GZIP + b"content-length"),
    "v1-no-gzip": predict(b"{}", GZIP),
    "binary-length": predict(b"{}", b"inference-header-content-length: 18446744073709551616\r\n"),
    "binary-length-v2": INFER + b"inference-header-content-length: 99\r\ncontent-length: 2\r\n\r\n{}",
    "binary-size": json(
        b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1],"parameters":{"binary_data_size":9}}]}'
    ),
}
