"""Small SavedModels of every kind that people serve: what callers ask them, and what TensorFlow itself answers.

Importing this imports no TensorFlow; ``python -m support.any_models ROOT`` writes the models, each in ROOT/<name>/1,
and TensorFlow's answers in ROOT/.answers/<name>.npz.
"""

from support.any_models import rows, shapes, strings, values
from support.any_models.kinds import COUNTS, KINDS, SHAPES, VALUES, Ask, Kind

__all__ = ["COUNTS", "KINDS", "SHAPES", "VALUES", "Ask", "Kind", "rows", "shapes", "strings", "values"]
