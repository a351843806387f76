"""Object stores as trainer and server name them: ``s3://bucket/prefix`` and ``gs://bucket/prefix``.

Below the prefix a store has the layout of a local model root, ``<name>/<integer version>/``. The manifest is written
last: a version without one of its listed files is half written. Who talks to a store takes its errors' words from
here, as the library's own may hold keys' names, signatures and whole answers.
"""

import hashlib
import re
from dataclasses import dataclass

EXTRA = "pip install 'horngate[remote]' first"
EXPECTED = (
    "expected a folder, s3://bucket/prefix or gs://bucket/prefix; credentials are no part of it: they come from the "
    "variables AWS_* or GOOGLE_*"
)


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A folder in an object store.

    Attributes:
        scheme: ``s3`` or ``gs``.
        bucket: its bucket.
        prefix: the folder, without slashes at its ends; empty for the whole bucket.
    """

    scheme: str
    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return "/".join(each for each in (f"{self.scheme}:/", self.bucket, self.prefix) if each)

    @property
    def folder_name(self) -> str:
        """A name that no other address has, and that is one of a local folder."""
        return f"{self.scheme}-{self.bucket}-{hashlib.sha256(str(self).encode()).hexdigest()[:12]}"


def parse(text: str) -> StoreUrl | None:
    """Read a store's address; None where the text is none, but a path.

    Raises:
        ValueError: it looks like an address and is no such one. The text is not repeated: it may hold a secret.
    """
    if "://" not in text:
        return None
    match = re.fullmatch(r"(s3|gs)://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/([^?#]*))?", text)
    if match is None:
        raise ValueError(EXPECTED)
    prefix = (match[3] or "").strip("/")
    if prefix and not all(each.strip(".") and each.isprintable() for each in prefix.split("/")):
        raise ValueError("expected a prefix of plain names between single slashes, s3://bucket/team/models")
    return StoreUrl(match[1], match[2], prefix)


def why(error: BaseException) -> str:
    """Say in a few words of our own what a store's library reports; nothing of the store's answer but its code."""
    text, kind = str(error), type(error).__name__
    path, answer, code = _BAD_PATH.search(text), _ANSWER.search(text), _CODE.search(text)
    if path:
        said = f"it lists {path[1]!a}, which is no plain path below the prefix"
    elif kind == "PreconditionError":
        said = "an object changed while it was read"
    elif _CREDENTIALS.search(text) and not code:
        said = f"no credentials for it{_CHECK}"
    elif answer:
        said = f"it answers {answer[1]} {answer[2].strip()}{f' ({code[1]})' if code else ''}"
        said += _HINTS.get(answer[1], "")
    elif "builder error" in text:
        said = "its address is no https, and AWS_ALLOW_HTTP is not true"
    elif _UNREACHABLE.search(text):
        said = "it cannot be reached, or does not answer in time"
    else:
        said = f"its library reports {kind}"
    return said


# --- private ---------------------------------------------------------------------------------------------------------

_CHECK = ": are the variables AWS_* or GOOGLE_* right?"
_HINTS = {
    "301": ": is AWS_REGION the bucket's?",
    "400": _CHECK,
    "401": _CHECK,
    "403": _CHECK,
    "404": ": is there such a bucket?",
}
_ANSWER = re.compile(r"status code: (\d{3}) ?([A-Za-z ]{0,40})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,40})</Code>")
_BAD_PATH = re.compile(r'[Pp]ath "((?:[^"\\]|\\.){1,300})"')
_UNREACHABLE = re.compile("error sending request|timed out|error decoding response body|connection", re.IGNORECASE)
_CREDENTIALS = re.compile(r"token request|AccessKeyId|SecretAccessKey|credential", re.IGNORECASE)
