"""The data of the experiments: scans of handwritten digits, 1797 of 8 by 8 pixels, as scikit-learn carries them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from normcheck.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

TRAINED = 1437
"""The first so many images are trained on; the other 360, of other writers, are held out."""

_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE / "digits.npz", _HERE.parents[1] / "data" / "digits.npz")
"""In an installed package, and in the repository."""


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Return the images as (1797, 1, 8, 8) of 0...16, in float64, and their classes; do not write into them.

    Raises:
        UsageError: the file of the data is not there.
    """
    found = next((path for path in _PLACES if path.is_file()), None)
    if found is None:
        raise UsageError(f"the digits are not there: neither {_PLACES[0]} nor {_PLACES[1]}; install normcheck again")
    with np.load(found) as data:
        images, classes = data["images"], data["classes"]
    return torch.tensor(images[:, None], dtype=torch.float64), torch.tensor(classes, dtype=torch.int64)
