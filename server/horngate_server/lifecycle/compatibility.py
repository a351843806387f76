"""Whether a version may answer in another's place: a question of signatures, without a disk or a clock."""

from collections.abc import Mapping

from horngate_server.core.inference import ModelInfo


def why_not(mine: Mapping[str, ModelInfo], theirs: Mapping[str, ModelInfo]) -> str:
    """Say why callers of a version that serves could not be answered by another; empty if they can.

    Args:
        mine: by signature, what would answer.
        theirs: by signature, what answers now.
    """
    for name, other in theirs.items():
        info = mine.get(name)
        if info is None or not info.signature.stands_in_for(other.signature):
            has = f"is {info.signature}" if info else "is not there"
            return (
                f"its signature {name} {has}, and version {other.version}'s callers rely on {other.signature}; "
                "any_signature = true in --config lets it serve"
            )
    return ""
