"""What a segmentation of tomograms is asked to do, from a YAML file or from options.

The file is PickET's, every key with its meaning; keys of our own may stand beside them. Keys that
nobody knows are refused, and so are values of another type, before anything is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import FormatError, ParameterError
from cryopick.parameters import describe
from cryopick.pipeline.tomo_segment_values import (
    filled,
    list_of,
    mapping_of,
    refuse_unknown,
    require_some,
    typed,
)
from cryopick.tomogram.segment_parameters import MODES, FeatureParameters, SegmentParameters

__all__ = ["METHODS", "SegmentRequest", "TomogramInput", "read_request", "request_of"]

METHODS = ("kmeans", "gmm")
_REQUIRED = ("dataset_name", "inputs", "feature_extraction_params", "output_dir")
_LIMITS = ("lower_z-slice_limit", "upper_z-slice_limit")
_OF_MODE = {
    "ffts": ("n_fft_subsets",),
    "gabor": (
        "num_sinusoids",
        "num_neighborhoods_subsets",
        "num_parallel_filters",
        "num_output_features",
    ),
    "intensities": (),
}
_KEY = re.compile(r"[\w-]+\s*:(\s|$)|#|---|\.\.\.")  # what may begin a line


@dataclass(frozen=True, kw_only=True)
class TomogramInput:
    """A tomogram, and the sections that may be learned from."""

    path: Path
    lower_z: int | None = None  # the first
    upper_z: int | None = None  # the first beyond


@dataclass(frozen=True, kw_only=True)
class SegmentRequest:
    """A whole segmentation."""

    inputs: tuple[TomogramInput, ...]
    features: tuple[FeatureParameters, ...]
    methods: tuple[str, ...]
    parameters: SegmentParameters
    folder: Path
    dataset_name: str = ""

    def __post_init__(self) -> None:
        require_some(self.inputs, "inputs", "a tomogram")
        require_some(self.features, "feature_extraction_params", "a mode of features")
        require_some(self.methods, "clustering_methods", "a method")
        for name, words in (
            ("clustering_methods", self.methods),
            ("feature_extraction_params", [f.mode for f in self.features]),
            ("inputs", [str(i.path) for i in self.inputs]),
        ):
            twice = [w for w in words if list(words).count(w) > 1]
            if twice:
                raise ParameterError(
                    name, must="name each once", got=f"{twice[0]} twice", remedy="Leave one out"
                )
        for method in self.methods:
            if method not in METHODS:
                raise ParameterError(
                    "clustering_methods",
                    must="be of " + ", ".join(METHODS),
                    got=method,
                    remedy="Change it",
                )

    def to_dict(self) -> dict[str, Any]:
        """All values that change results, with the defaults filled in."""
        return {
            "dataset_name": self.dataset_name,
            "limits": {
                str(i.path): [i.lower_z, i.upper_z]
                for i in self.inputs
                if (i.lower_z, i.upper_z) != (None, None)
            },
            **self.parameters.to_dict(),
            "feature_extraction_params": [
                {"mode": f.mode, **{n: getattr(f, n) for n in _OF_MODE[f.mode]}}
                for f in self.features
            ],
            "clustering_methods": list(self.methods),
        }


def request_of(
    tomograms: Sequence[str],
    *,
    changes: Mapping[str, Any],
    batch: Mapping[str, Any],
    folder: Path | None,
    feature: Sequence[str] | None = None,
    clustering: Sequence[str] | None = None,
    limits: tuple[int | None, int | None] = (None, None),
) -> SegmentRequest:
    """Make a request from options.

    Parameters
    ----------
    tomograms
        Paths.
    changes, batch
        Parameters of the segmentation, and of the modes, that differ from what is shipped.
    folder
        For the results.
    feature, clustering
        Modes and methods; gabor and gmm if not given.
    limits
        First section to learn from, and first beyond, of every tomogram.

    Raises
    ------
    ParameterError
        If a value is wrong or there is no folder.
    """
    if folder is None:
        raise ParameterError(
            "out", must="be given with tomograms", got="none", remedy="Give the folder with --out"
        )
    modes = [{"mode": mode} for mode in feature or ("gabor",)]
    return SegmentRequest(
        inputs=tuple(_limited(Path(t), limits) for t in tomograms),
        features=tuple(_feature(_with_batch(m, batch)) for m in modes),
        methods=tuple(clustering or ("gmm",)),
        parameters=filled(SegmentParameters, changes),
        folder=folder,
    )


def read_request(
    paths: Sequence[str],
    *,
    changes: Mapping[str, Any] | None = None,
    batch: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    feature: Sequence[str] | None = None,
    clustering: Sequence[str] | None = None,
    limits: tuple[int | None, int | None] = (None, None),
) -> SegmentRequest:
    """Read a YAML file of parameters; what is given beside it takes the place of its values.

    Parameters
    ----------
    paths
        The file, alone.
    changes, batch, feature, clustering, limits
        As for `request_of`; limits are those of every tomogram.
    folder
        For the results, instead of output_dir/dataset_name.

    Returns
    -------
    SegmentRequest
        Paths are relative to the working folder, as the file has them.

    Raises
    ------
    FormatError
        If it is not YAML.
    ParameterError
        If a key is missing or unknown, or a value is not what it must be.
    """
    path = Path(paths[0])
    if len(paths) > 1:
        raise ParameterError(
            "inputs", must="be one YAML file alone", got=paths[1], remedy="List it in the file"
        )
    values = mapping_of(_load(path), str(path))
    own = {d.name for d in describe(SegmentParameters)}
    refuse_unknown(values, {*_REQUIRED, "clustering_methods", *own}, str(path))
    for name in _REQUIRED:
        if values.get(name) is None and not (name == "output_dir" and folder is not None):
            raise ParameterError(
                str(path), must=f"have the key {name}", got="none", remedy="Add it"
            )
    name = typed("dataset_name", values["dataset_name"], str)
    out = folder or Path(typed("output_dir", values["output_dir"], str)) / name
    modes = list_of("feature_extraction_params", values["feature_extraction_params"])
    methods = list_of("clustering_methods", values.get("clustering_methods", METHODS))
    entries = [_input(i) for i in list_of("inputs", values["inputs"])]
    chosen = {n: v for n, v in values.items() if n in own}
    return SegmentRequest(
        inputs=tuple(i if limits == (None, None) else _limited(i.path, limits) for i in entries),
        features=tuple(_feature(_with_batch(m, batch or {})) for m in _of_modes(modes, feature)),
        methods=tuple(typed("clustering_methods", m, str) for m in clustering or methods),
        parameters=filled(SegmentParameters, {**chosen, **(changes or {})}),
        folder=out,
        dataset_name=name,
    )


def _limited(path: Path, limits: tuple[int | None, int | None]) -> TomogramInput:
    return TomogramInput(path=path, lower_z=limits[0], upper_z=limits[1])


def _of_modes(entries: Sequence[Any], chosen: Sequence[str] | None) -> Sequence[Any]:
    """Keep the entries of the modes that were chosen, and add those that the file has not."""
    if not chosen:
        return entries
    known = {e.get("mode"): e for e in entries if isinstance(e, dict)}
    return [known.get(mode, {"mode": mode}) for mode in chosen]


def _with_batch(entry: Any, batch: Mapping[str, Any]) -> Any:
    """Give a mode those of the options that are its own."""
    if not isinstance(entry, dict) or entry.get("mode") not in _OF_MODE:
        return entry
    own = {n: v for n, v in batch.items() if n in _OF_MODE[str(entry["mode"])]}
    return {**entry, **own}


def _load(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(_indented(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise FormatError(
            str(path), must="be a readable file", got="no such file", remedy="Check the path"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise FormatError(
            str(path),
            must="be a YAML file",
            got=f"{getattr(error, 'problem', None) or type(error).__name__}{where}",
            remedy="Mend it there",
        ) from error


def _indented(text: str) -> str:
    """Indent all but the keys of the first level, as lists that begin a line are no YAML."""
    lines = (
        line if _KEY.match(line) or not line.strip() else f"  {line}" for line in text.splitlines()
    )
    return "\n".join(lines)


def _input(value: Any) -> TomogramInput:
    values = mapping_of(value, "an entry of inputs")
    refuse_unknown(values, {"tomogram", *_LIMITS}, "inputs")
    if "tomogram" not in values:
        raise ParameterError(
            "an entry of inputs", must="have the key tomogram", got="none", remedy="Add it"
        )
    low, high = (None if values.get(n) is None else typed(n, values[n], int) for n in _LIMITS)
    path = Path(typed("tomogram", values["tomogram"], str))
    return TomogramInput(path=path, lower_z=low, upper_z=high)


def _feature(value: Any) -> FeatureParameters:
    values = mapping_of(value, "an entry of feature_extraction_params")
    mode = values.get("mode")
    if mode not in MODES:
        raise ParameterError(
            "mode",
            must="be one of " + ", ".join(MODES),
            got=mode or "none",
            remedy="Change it in feature_extraction_params",
        )
    refuse_unknown(values, {"mode", *_OF_MODE[mode]}, f"the mode {mode}")
    return filled(FeatureParameters, values)
