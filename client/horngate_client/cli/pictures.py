"""``predict`` and ``explain``: pictures, or arrays of their pixels."""

import argparse
import json
import sys
from typing import Any

import numpy as np

from horngate_client import chart, images
from horngate_client.cli import DONE
from horngate_client.cli.connection import Asking, connected
from horngate_client.cli.parser import command
from horngate_client.errors import ConfigurationError, ConversionError
from horngate_client.explanation import LARGE_GAP, Explanation
from horngate_client.prediction import Prediction
from horngate_client.settings import colours

_FILES = "a picture of one image, or an .npy of one or many"


def add(commands: Any) -> None:
    """Tell the parser of them."""
    predict = command(
        commands,
        "predict",
        "classify pictures (PNG, JPEG) or arrays (.npy)",
        "examples:\n  horngate-client predict seven.png four.jpg\n  horngate-client predict --json images.npy\n"
        "  horngate-client predict --model fashion shirt.png --resize\n\n"
        "MNIST digits are light on dark, 28x28: --invert swaps dark ink on light paper, --resize scales.\n"
        "For a model that takes no pictures there is infer.",
    )
    _add_options(predict)
    predict.add_argument("--show", action="store_true", help="draw each image as the model sees it")
    predict.set_defaults(run=_predict)
    explain = command(
        commands,
        "explain",
        "show which parts of pictures speak for a class, and which against it",
        "examples:\n  horngate-client explain seven.png\n"
        "  horngate-client explain seven.png --target 1 --output heat.png\n\n"
        "Red, or # and +, speaks for the class; blue, or = and -, against it. The model needs the signature explain,\n"
        "which horngate-trainer writes, and horngate_trainer.export(..., explain=True).",
    )
    _add_options(explain)
    explain.add_argument(
        "--target", type=int, metavar="CLASS", help="the class to explain (default: the one that is predicted)"
    )
    explain.add_argument("--output", metavar="FILE.png", help="draw it into this file, rather than here")
    explain.set_defaults(run=_explain)


# --- private ---------------------------------------------------------------------------------------------


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help=_FILES)
    add("--resize", action="store_true", help="scale pictures to the model's size")
    add("--invert", action="store_true", help="swap black and white")
    add("--json", action="store_true", help="print JSON")


def _predict(args: argparse.Namespace) -> int:
    with connected(args) as asking:
        batch, origins = _read_images(args, asking)
        prediction = asking.client.predict(batch, timeout=asking.left())
    if args.json:
        print(json.dumps(_prediction_json(asking.model, origins, prediction), indent=2))
        return DONE
    unicode = _speaks_unicode()
    detailed = args.show or len(batch) <= 10
    for index, (name, row, rows) in enumerate(origins):
        shares = prediction.probabilities[index]
        label = int(prediction.classes[index])
        certainty = f"{float(shares[label]):.1%}" if 0 <= label < len(shares) else ""
        print(f"{name}{f'[{row}]' if rows > 1 else ''}: {label}  {certainty}".rstrip())
        if args.show and batch.dtype == np.uint8:
            print("\n".join(chart.picture(np.squeeze(batch[index]), unicode=unicode)))
        if detailed:
            print("\n".join(f"  {line}".rstrip() for line in chart.bars(shares.tolist(), unicode=unicode)))
    return DONE


def _read_images(args: argparse.Namespace, asking: Asking) -> tuple[images.Array, list[tuple[str, int, int]]]:
    """Return what the files hold, and for each image its file, its row there, and how many there are."""
    wanted = images.ImageInput.of(asking.client.model(timeout=asking.left()))
    batches = [images.convert(name, wanted, resize=args.resize, invert=args.invert) for name in args.files]
    sizes = {batch.shape[1:] for batch in batches}
    if len(sizes) > 1:
        raise ConversionError(f"the files differ in size, and one batch has one: {sorted(sizes)}")
    origins = [
        (name, row, len(rows)) for name, rows in zip(args.files, batches, strict=True) for row in range(len(rows))
    ]
    return np.concatenate(batches), origins


def _explain(args: argparse.Namespace) -> int:
    with connected(args) as asking:
        batch, origins = _read_images(args, asking)
        found = asking.client.explain(batch, args.target, timeout=asking.left())
    if args.output is not None:
        try:
            found.to_image().save(args.output)
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"--output {args.output} cannot be written: {exc}") from exc
    if args.json:
        print(json.dumps(_explanation_json(asking.model, origins, found), indent=2))
        return DONE
    colour = sys.stdout.isatty() and colours()
    for index, (name, row, rows) in enumerate(origins):
        score, before, gap = (float(each[index]) for each in (found.scores, found.baseline_scores, found.gaps))
        print(
            f"{name}{f'[{row}]' if rows > 1 else ''}: {found.target[index]}  {score:.1%}, "
            f"{before:.1%} where there is nothing"
        )
        if args.output is None:
            print("\n".join(chart.heat(found.strengths[index], colour=colour)))
        if not gap <= LARGE_GAP:
            print(f"  not to be trusted: it misses {gap:.2f} of the difference")
    return DONE


def _explanation_json(model: str, origins: list[tuple[str, int, int]], found: Explanation) -> dict[str, Any]:
    numbers = zip(
        found.target.tolist(), found.scores.tolist(), found.baseline_scores.tolist(), found.gaps.tolist(), strict=True
    )
    return {
        "model": model,
        "version": found.version,
        "explanations": [
            {
                "file": name, "row": row, "target": target, "score": score, "baseline_score": before, "gap": gap,
                "attributions": attributions.tolist(),
            }
            for (name, row, _), (target, score, before, gap), attributions in zip(
                origins, numbers, found.attributions, strict=True
            )
        ],
    }  # fmt: skip


def _prediction_json(model: str, origins: list[tuple[str, int, int]], prediction: Prediction) -> dict[str, Any]:
    timing = prediction.timing
    rows = zip(origins, prediction.classes.tolist(), prediction.probabilities.tolist(), strict=True)
    return {
        "model": model,
        "version": prediction.version,
        "timing": {"total_s": timing.total, "queue_s": timing.queue, "compute_s": timing.compute},
        "predictions": [
            {"file": name, "row": row, "class": label, "probabilities": shares}
            for (name, row, _), label, shares in rows
        ],
    }


def _speaks_unicode() -> bool:
    return "utf" in (sys.stdout.encoding or "").lower()
