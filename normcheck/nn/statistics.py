"""What a norm of torch divides by, forward and backward: the mathematics of each statistic, once for every *where*.

    c = x - mean(x)              (c = x where the norm is not centred)
    s = C * estimate(c) + eps
    y = c / s,   out = y * weight + bias

    dx = (h - mean(h)) / s,      h = g - sum(g * y) * C * p      (dx = h / s where the norm is not centred)

with g = d loss / d y, and p = d estimate / d c of the statistic (`STATISTICS`). l2 is not here: torch has it.

A tensor is seen as (outer, groups, inner), its `Rows`: group j has the outer * inner = n elements at [:, j, :], which
is (N, C, H W) for batch norm and (1, rows, n) for all others. So a batch norm reads channels-last memory as it lies.

Sources: Hoffer et al., "Norm matters" (arXiv 1803.01814); range: Banner et al. (arXiv 1805.11046).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from normcheck.errors import UsageError
from normcheck.norms.constants import constant

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.norms.constants import Kind
    from normcheck.norms.table import StatisticName

Rows = tuple[int, int, int]
"""outer, groups, inner."""

_OVER = (0, 2)
"""The dimensions of a tensor seen as `Rows` that a group extends over."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One statistic, apart from its constant.

    estimate: from c as (outer, groups, inner) and k to the estimate as (1, groups, 1) and the places, as (groups, m),
    of the elements in each group that decide it; no places where all do.
    pulled: from g, y, t = C * sum(g * y) and places to h = g - t * p, in memory of its own.
    of_n: whether the constant depends on the number of elements.
    """

    estimate: Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor | None]]
    pulled: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Any], torch.Tensor]
    of_n: bool


def _absolute_mean(c: torch.Tensor, k: int) -> tuple[torch.Tensor, None]:  # noqa: ARG001  # k is topk's
    return c.abs().mean(_OVER, keepdim=True), None


def _pulled_by_signs(g: torch.Tensor, y: torch.Tensor, t: torch.Tensor, places: None) -> torch.Tensor:  # noqa: ARG001
    """p = sgn(c) / n, and sgn(c) = sgn(y)."""
    n = y.shape[0] * y.shape[2]
    return y.sign().mul_(-t / n).add_(g)


def _mean_of_largest(c: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of equal magnitudes at the edge of the k largest any may be taken: the estimate has no derivative there."""
    magnitudes = _as_matrix(c).abs()
    largest, places = magnitudes.max(1, keepdim=True) if k == 1 else magnitudes.topk(k, dim=1, sorted=False)
    return largest.mean(1)[None, :, None], places


def _pulled_by_largest(g: torch.Tensor, y: torch.Tensor, t: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """p = sgn(c) / k at the places of the k largest, 0 elsewhere."""
    index = _index(places, y)
    return _added(g, index, y[index].sign() * (-t.reshape(-1, 1) / places.shape[1]))


def _span(c: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG001  # k is topk's
    rows = _as_matrix(c)
    high, at_high = rows.max(1)
    low, at_low = rows.min(1)
    return (high - low)[None, :, None], torch.stack((at_high, at_low), 1)


def _pulled_by_ends(g: torch.Tensor, y: torch.Tensor, t: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """p = 1 at the place of the maximum and -1 at that of the minimum."""
    pull = t.reshape(-1, 1)
    return _added(g, _index(places, y), torch.cat((-pull, pull), 1))


STATISTICS: dict[str, Statistic] = {
    "l1": Statistic(_absolute_mean, _pulled_by_signs, of_n=False),
    "linf": Statistic(lambda c, _: _mean_of_largest(c, 1), _pulled_by_largest, of_n=True),
    "topk": Statistic(_mean_of_largest, _pulled_by_largest, of_n=True),
    "range": Statistic(_span, _pulled_by_ends, of_n=True),
}


def normalized(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    rows: Rows,
    *,
    statistic: StatisticName,
    kind: Kind,
    k: int,
    eps: float,
    centred: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalise a tensor by the statistics of its own groups, of any statistic but l2.

    Computed in float32 for float16 and bfloat16, else in the type of `x`, and rounded to that type once. For the
    backward pass y is kept in the type of `x`, s and, of linf, topk and range, the places of the elements that decide
    them; neither `x` nor c. Of l1, that is the sign of c beside y, which y has. There is no second derivative.

    Args:
        x: input.
        weight: gamma, shaped so that it broadcasts to `x`. bias: beta, likewise.
        rows: how `x` falls into groups.
        statistic: what is divided by. kind: its constant. k: of topk.
        eps: added to s.
        centred: whether the mean is taken off first.

    Returns:
        The output, and of each group its mean (0 where the norm is not centred) and C * estimate, as (1, groups, 1).
        NaN and infinities spread to their whole group. A group without variance gives `bias`, NaN where eps is 0.

    Raises:
        UsageError: groups of fewer than k elements, or of one element where the constant is undefined.
    """
    row = STATISTICS[statistic]
    n = operator.index(rows[0] * rows[2]) if row.of_n else 1  # torch.compile then compiles for each n
    if statistic == "topk" and n < k:
        raise UsageError(
            f"topk takes the k = {k} largest deviations of a group, received groups of n = {n} elements: "
            f"choose k <= {n}, larger groups or another statistic"
        )
    scale = _scale(statistic, kind, n, k)
    results: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _Normalize.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, rows, statistic, scale, k, eps, centred
    )
    return results


def with_given(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    s: torch.Tensor,
) -> torch.Tensor:
    """Return (x - mean) / s * weight + bias for statistics that do not depend on `x`, in the types of `normalized`."""
    wide = computing_type(x)
    y = (x.to(wide) - mean.to(wide)) / s.to(wide)
    return affine(y, weight, bias).to(x.dtype)


def affine(y: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """Return y * weight + bias in the type of y."""
    if weight is None:
        return y if bias is None else y + bias.to(y.dtype)
    out = y * weight.to(y.dtype)
    return out if bias is None else out.add_(bias.to(y.dtype))


def computing_type(x: torch.Tensor) -> torch.dtype:
    """Return the type that norms of `x` are computed in: float32 for what is narrower.

    Raises:
        UsageError: integers or complex numbers.
    """
    if not x.is_floating_point():
        raise UsageError(f"expected floating-point input, received {x.dtype}")
    return torch.promote_types(x.dtype, torch.float32)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _scale(statistic: StatisticName, kind: Kind, n: int, k: int) -> float:
    """The constant, which compilers take as a number: it comes from a quadrature that they cannot trace."""
    return constant(statistic, kind, n, k)


class _Normalize(torch.autograd.Function):
    """See `normalized`. The mean and the statistic that it returns have no gradient: they are for running averages."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        rows: Rows,
        statistic: str,
        scale: float,
        k: int,
        eps: float,
        centred: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        c = x.to(computing_type(x)).reshape(rows)
        mean = c.mean(_OVER, keepdim=True) if centred else c.new_zeros(1, 1, 1)
        c = c - mean if centred else c
        estimate, places = STATISTICS[statistic].estimate(c, k)
        estimate = estimate * scale
        s = estimate + eps
        y = (c.div_(s) if centred else c / s).reshape(x.shape)
        out = affine(y, weight, bias).to(x.dtype)
        ctx.save_for_backward(y.to(x.dtype), s, weight, places)
        ctx.rows, ctx.statistic, ctx.scale, ctx.centred = rows, statistic, scale, centred
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        ctx.mark_non_differentiable(mean, estimate)
        return out, mean, estimate

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        y, s, weight, places = ctx.saved_tensors
        wide, y = grad.to(s.dtype), y.to(s.dtype)
        d_weight = d_bias = dx = None
        product, gamma = wide * y, None if weight is None else weight.to(wide.dtype)
        if ctx.needs_input_grad[1]:
            d_weight = product.sum_to_size(weight.shape).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            d_bias = wide.sum_to_size(ctx.bias[0]).to(ctx.bias[1])
        if ctx.needs_input_grad[0]:
            g, y = (wide if gamma is None else wide * gamma).reshape(ctx.rows), y.reshape(ctx.rows)
            t = _dot(product, gamma, ctx.rows) * ctx.scale
            h = STATISTICS[ctx.statistic].pulled(g, y, t, places)
            h = h.sub_(h.mean(_OVER, keepdim=True)) if ctx.centred else h
            dx = h.div_(s).reshape(grad.shape).to(grad.dtype)
        return dx, d_weight, d_bias, *(None,) * 6


def _dot(product: torch.Tensor, gamma: torch.Tensor | None, rows: Rows) -> torch.Tensor:
    """Sum over each group of g * y = gamma * `product`, which is overwritten where gamma varies within groups."""
    if gamma is None:
        return product.reshape(rows).sum(_OVER, keepdim=True)
    if rows[0] > 1:  # groups over several runs of memory are channels: gamma has one number for each
        return product.reshape(rows).sum(_OVER, keepdim=True) * gamma.reshape(1, -1, 1)
    return product.mul_(gamma).reshape(rows).sum(_OVER, keepdim=True)


def _as_matrix(c: torch.Tensor) -> torch.Tensor:
    """One group a row; a copy where a group does not lie in one piece."""
    return c.transpose(0, 1).reshape(c.shape[1], -1)


def _index(places: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The places within groups as an index into the tensor seen as `Rows`."""
    groups = torch.arange(y.shape[1], device=y.device)[:, None].expand_as(places)
    return places // y.shape[2], groups, places % y.shape[2]


def _added(
    g: torch.Tensor, index: tuple[torch.Tensor, torch.Tensor, torch.Tensor], values: torch.Tensor
) -> torch.Tensor:
    """`g` with `values` added: at one place twice where a group has one element only, or all are equal."""
    return g.index_put(index, values, accumulate=True)
