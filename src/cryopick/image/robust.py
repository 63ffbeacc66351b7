"""Middle and spread of values among which some are no part of the rest."""

from __future__ import annotations

from torch import Tensor

__all__ = ["middle_and_spread"]

_TO_DEVIATION = 1.4826  # 1 / the upper quartile of the normal distribution


def middle_and_spread(values: Tensor, *, dim: int | None = None) -> tuple[Tensor, Tensor]:
    """Median, and the standard deviation that the median absolute deviation stands for.

    Parameters
    ----------
    values
        Floating-point values, at least one; of any shape.
    dim
        Dimension to go along, and to leave out; all values together if not given.

    Returns
    -------
    tuple of Tensor
        Median (the lower one of two) and 1.4826 times the median distance from it, which is the
        standard deviation of a normal distribution and 0 where more than half are equal; in the
        units of the values.

    Notes
    -----
    Hampel, J. Am. Stat. Assoc. 69 (1974) 383.

    Examples
    --------
    >>> import torch
    >>> middle, spread = middle_and_spread(torch.tensor([1.0, 2.0, 3.0, 4.0, 1000.0]))
    >>> float(middle), round(float(spread), 4)
    (3.0, 1.4826)
    """
    if dim is None:
        middle = values.median()
        return middle, _TO_DEVIATION * (values - middle).abs().median()
    middle = values.median(dim, keepdim=True).values
    return middle.squeeze(dim), _TO_DEVIATION * (values - middle).abs().median(dim).values
