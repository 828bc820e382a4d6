"""What all norm modules have in common: the statistic, its constant and k, checked, and what the norm is called."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch

from normcheck.errors import UsageError, unknown_name
from normcheck.norms.constants import Kind
from normcheck.norms.table import STATISTICS, Norm, norm_named

if TYPE_CHECKING:
    from normcheck.norms.table import StatisticName


class ChosenNorm(torch.nn.Module):
    """Base of the norms that divide by a statistic of the user's choice.

    Args:
        eps: added to the variance of l2, and to every other statistic itself.
        statistic: l2, l1, linf, topk or range; None for what the class is named for.
        k: of topk, how many of the largest deviations count. constant: of all but l2.

    Attributes:
        where: which elements share a statistic.
        centred: whether the mean is taken off first.
        named_for: the statistic of the class.

    Raises:
        UsageError: an unknown statistic or constant, k < 1, a negative eps.
    """

    where: ClassVar[Literal["batch", "layer", "group", "instance"]]
    centred: ClassVar[bool] = True
    named_for: ClassVar[StatisticName | None] = None

    statistic: StatisticName
    constant: Kind
    k: int
    eps: float
    weight: torch.nn.Parameter | None
    bias: torch.nn.Parameter | None

    def __init__(self, eps: float, statistic: StatisticName | None, k: int, constant: Kind) -> None:
        super().__init__()
        if statistic is not None and statistic not in STATISTICS:
            raise unknown_name("statistic", str(statistic), STATISTICS, "normcheck norms")
        if statistic is not None and self.named_for not in (None, statistic):
            raise UsageError(f"{type(self).__name__} is of {self.named_for}, received statistic={statistic!r}")
        if constant not in get_args(Kind):
            raise UsageError(f"constant must be exact or paper, received {constant!r}")
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise UsageError(f"k must be an integer of at least 1, received {k!r}: how many deviations topk takes")
        if not (math.isfinite(eps) and eps >= 0):
            raise UsageError(f"eps must be finite and not negative, received {eps!r}")
        self.statistic = statistic or self.named_for or "l2"
        self.constant = constant
        self.k = k
        self.eps = eps

    @property
    def norm(self) -> Norm:
        """Which norm of `normcheck.norms()` this is."""
        return norm_named(f"{self.where}-{self.statistic}{'' if self.centred else '-uncentred'}")

    def normcheck_facts(self) -> dict[str, Any]:
        """Return what `normcheck.analyze` is told of this layer: the norm, names of attributes, and settings."""
        return {"norm": self.norm, "weight": "weight", "bias": "bias", "eps": self.eps}

    def chosen(self) -> str:
        """Return the settings that torch's modules lack, for `extra_repr`; nothing for l2."""
        if self.statistic == "l2":
            return ""
        k = f", k={self.k}" if self.statistic == "topk" else ""
        return f", statistic={self.statistic}, constant={self.constant}{k}"

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments of `normcheck.nn.statistics.normalized`."""
        return {
            "statistic": self.statistic,
            "kind": self.constant,
            "k": self.k,
            "eps": self.eps,
            "centred": self.centred,
        }

    def add_affine(self, shape: tuple[int, ...], weight: bool, bias: bool, factory: dict[str, Any]) -> None:
        """Register gamma = 1 and beta = 0, or None for each that the norm does not have."""
        for name, wanted, start in (("weight", weight, torch.ones), ("bias", bias, torch.zeros)):
            self.register_parameter(name, torch.nn.Parameter(start(shape, **factory)) if wanted else None)

    def reset_parameters(self) -> None:
        """Set gamma to 1 and beta to 0."""
        for name, start in (("weight", torch.nn.init.ones_), ("bias", torch.nn.init.zeros_)):
            if (parameter := getattr(self, name)) is not None:
                start(parameter)


def refuse_one_element(n: int, size: torch.Size, what: str) -> None:
    """Refuse groups of one element, whose deviation is 0 whatever it is.

    Raises:
        UsageError: in torch's words.
    """
    if n == 1:
        raise UsageError(f"expected more than 1 {what} when training, got input size {list(size)}")


def under_autocast(x: torch.Tensor) -> torch.Tensor:
    """Return `x` as torch's layer, RMS and group norms see it: on CUDA under autocast in float32, whatever it was."""
    if x.is_cuda and torch.is_autocast_enabled("cuda") and x.dtype in (torch.float16, torch.bfloat16):
        return x.float()
    return x
