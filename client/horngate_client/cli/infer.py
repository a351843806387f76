"""``infer``: any model, whatever it takes and returns."""

import argparse
import json
import sys
from typing import Any

from horngate_client.cli import DONE, inputs, outputs
from horngate_client.cli.connection import connected
from horngate_client.cli.parser import command
from horngate_client.errors import ConfigurationError

FILES = """\
--input and FILE take
  .npz              arrays by the names of inputs, as numpy.savez writes them
  .npy              one array
  .json, .jsonl, -  JSON: row objects, [{"age": 42}, {"age": 7}] or one a line; columns, {"age": [42, 7]}; one row,
                    {"age": 42}; or the values alone, where the model has one input. {"b64": "..."} stands for bytes
  .png, .jpg, ...   a picture, for an input of images; for strings (BYTES), the file's bytes as they are
  .txt              a string for each line; any other file is one string"""


def add(commands: Any) -> None:
    """Tell the parser of it."""
    parser = command(
        commands,
        "infer",
        "run any model: arrays, rows of a table, texts or pictures in, arrays out",
        "examples:\n"
        """  echo '{"age": 42, "city": "Ghent"}' | horngate-client infer\n"""
        "  horngate-client infer --model wine --input alcohol=alcohol.npy --input acidity=acidity.npy\n"
        "  horngate-client infer --model sentiment --input text=reviews.txt --json\n"
        "  horngate-client infer --model sentiment reviews.npz\n"
        "  horngate-client infer --model photos --input cat.png --input dog.png --resize\n"
        "  horngate-client infer --model mnist --signature explain seven.npz\n\n"
        f"{FILES}\n\n"
        "Without NAME= a file is for the model's only input; `horngate-client status` shows the inputs. Rows are\n"
        "printed as a table, long values and many rows abbreviated; --json prints everything. Strings come back as\n"
        'text, or as {"b64": ...} where they are no UTF-8.',
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="what to send; - is standard input, and the default")
    inputs.add_option(parser, "for one input, or all of them; again for each input, or for more rows")
    parser.add_argument("--signature", default="", metavar="NAME", help="run this one (default: the model's default)")
    parser.add_argument("--resize", action="store_true", help="scale pictures to the model's size")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_infer)


# --- private ---------------------------------------------------------------------------------------------


def _infer(args: argparse.Namespace) -> int:
    files = [*([] if args.file is None else [args.file]), *(args.input or [])]
    if not files and sys.stdin.isatty():
        raise ConfigurationError("there is nothing to send: name a FILE, use --input, or pipe JSON into the command")
    given = inputs.read(files or [inputs.STDIN])
    with connected(args) as asking:
        model = asking.client.model(timeout=asking.left()).asked(args.signature)
        values = inputs.bind(given, model, resize=args.resize)
        answer = asking.client.infer(values, signature=args.signature, timeout=asking.left())
    if args.json:
        found = {name: outputs.as_json(array) for name, array in answer.items()}
        print(json.dumps({"model": asking.model, "outputs": found}, indent=2))
    else:
        in_rows = all(spec.in_rows for spec in (*model.inputs, *model.outputs))
        print("\n".join(outputs.lines(answer, in_rows=in_rows)))
    return DONE
