"""Choose rows of a table: by value, without duplicates, apart from each other, in equal parts.

Every function returns row numbers or rows and leaves its argument unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import ParameterError, TableError
from cryopick.tables.model import require_columns

__all__ = ["first_of_each", "select_by_value", "select_distant", "split_rows"]


def select_by_value(
    rows: pd.DataFrame,
    column: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
) -> pd.DataFrame:
    """Keep the rows whose value lies within closed limits; NaN lies within none.

    Parameters
    ----------
    rows
        Any table.
    column
        A column of numbers.
    minimum, maximum
        Limits; None is no limit.

    Returns
    -------
    pandas.DataFrame
        The rows kept, in their order, with their index.

    Raises
    ------
    TableError
        If the column is missing or holds text.

    Examples
    --------
    >>> select_by_value(pd.DataFrame({"fom": [0.1, 0.5, 0.9]}), "fom", minimum=0.5)["fom"].tolist()
    [0.5, 0.9]
    """
    require_columns(rows, [column], table="the table")
    values = rows[column]
    if not pd.api.types.is_numeric_dtype(values):
        raise TableError(
            f"column {column}", must="hold numbers", got="text", remedy="Select by another column"
        )
    lower = -np.inf if minimum is None else minimum
    upper = np.inf if maximum is None else maximum
    return rows[values.between(lower, upper)]


def first_of_each(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Keep the first row of those that have equal values in all of some columns.

    Parameters
    ----------
    rows
        Any table.
    names
        The columns that must differ.

    Raises
    ------
    TableError
        If a column is missing.
    """
    require_columns(rows, names, table="the table")
    return rows[~rows.duplicated(list(names))]


def select_distant(
    rows: pd.DataFrame, *, min_distance: float, pixel_size: NDArray[np.float64] | float
) -> pd.DataFrame:
    """Of particles of one micrograph that lie too close to each other, keep the first.

    Parameters
    ----------
    rows
        micrograph, x and y in px of the micrograph; where there are `shift_x` and `shift_y`
        (A), the true centre is x - shift_x / pixel_size, as in RELION.
    min_distance
        A. A row is dropped if a row above it that is kept lies closer than this.
    pixel_size
        A/px of the micrographs: one number, or (n,).

    Returns
    -------
    pandas.DataFrame
        The rows kept, in their order, with their index.

    Raises
    ------
    TableError
        If a column is missing or a position is not finite.
    """
    from scipy.spatial import cKDTree

    require_columns(rows, ("micrograph", "x", "y"), table="the table")
    centers = rows[["x", "y"]].to_numpy(float) * np.reshape(pixel_size, (-1, 1))
    if {"shift_x", "shift_y"} <= set(rows.columns):
        centers = centers - rows[["shift_x", "shift_y"]].to_numpy(float)
    if not np.isfinite(centers).all():
        place = int(np.isfinite(centers).all(axis=1).argmin())
        raise TableError(
            "x and y", must="be finite", got=f"row {place + 1} without", remedy="Mend the table"
        )
    is_kept = np.ones(len(rows), bool)
    for members in rows.groupby("micrograph", sort=False).indices.values():
        tree = cKDTree(centers[members])
        pairs = tree.query_pairs(min_distance, output_type="ndarray")
        is_closer = _distances(centers[members], pairs) < min_distance
        pairs = np.sort(pairs[is_closer], axis=1)
        for first, second in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
            if is_kept[members[first]]:
                is_kept[members[second]] = False
    return rows[is_kept]


def _distances(centers: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    steps = centers[pairs[:, 0]] - centers[pairs[:, 1]]
    return np.hypot(steps[:, 0], steps[:, 1])


def split_rows(
    n_rows: int,
    *,
    n_subsets: int | None = None,
    subset_size: int | None = None,
    seed: int | None = None,
) -> list[NDArray[np.int64]]:
    """Deal row numbers to subsets.

    Parameters
    ----------
    n_rows
        Rows in all.
    n_subsets
        Number of subsets, whose sizes differ by at most one; with `subset_size`, the most
        subsets to make, and rows beyond them are in none.
    subset_size
        Rows of each subset; the last may have fewer.
    seed
        Deal at random; None deals the rows in their order.

    Returns
    -------
    list of numpy.ndarray
        (k,) int row numbers from 0 of each subset, ascending.

    Raises
    ------
    ParameterError
        If there are fewer rows than subsets, or neither number is given.

    Examples
    --------
    >>> [part.tolist() for part in split_rows(5, n_subsets=2)]
    [[0, 1, 2], [3, 4]]
    """
    order = np.arange(n_rows)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(n_rows)
    if subset_size is not None:
        parts = [order[s : s + subset_size] for s in range(0, n_rows, subset_size)]
    elif n_subsets is not None:
        parts = np.array_split(order, n_subsets)
    else:
        raise ParameterError(
            "n_subsets", must="be given, or subset_size", got="neither", remedy="Give --n-subsets"
        )
    if (n_subsets is not None and len(parts) < n_subsets) or any(not len(p) for p in parts):
        raise ParameterError(
            "n_subsets",
            must=f"be at most {min(len(parts), n_rows)} for {n_rows} rows",
            got=str(n_subsets),
            remedy="Change --n-subsets or --subset-size",
        )
    return [np.sort(part) for part in parts[:n_subsets]]
