"""The pickers as one kind of thing: how to pick a field, and what to write down about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError
from cryopick.io.mrc import write_mrc
from cryopick.picking.blob import pick_blob, working_pixel_size
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.blob_shapes import count_filters
from cryopick.picking.diameter import DiameterEstimate
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.log import pick_log
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.log_relion import pick_log_relion
from cryopick.picking.log_relion_response import scale_diameters, working_size
from cryopick.picking.template import pick_template, template_bytes
from cryopick.picking.template_harmonics import Templates, prepare_templates
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.diameter_files import write_diameter
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.pipeline.templates import read_templates
from cryopick.tables.pick_scores import RELION_FIGURE, Z_SCORE, PickScore

__all__ = ["BlobPicker", "LogPicker", "Picker", "TemplatePicker", "make_template_picker"]

_WIDEST = 6  # diameters: a wider template is a micrograph, or its pixel size is wrong


class Picker(Protocol):
    """What a picking job needs of a picker. It travels to the workers."""

    @property
    def name(self) -> str:
        """The command."""

    @property
    def score(self) -> PickScore:
        """What its figure of merit means."""

    @property
    def largest_diameter(self) -> float:
        """Of a particle, A."""

    def record(self) -> dict[str, Any]:
        """All values that change the picks, as JSON takes them."""

    def pick(self, micrograph: Tensor, *, pixel_size: float, ctf: FieldCtf | None) -> FieldPicks:
        """Pick one field."""

    def field_bytes(self, side: int, pixel_size: float) -> int:
        """Peak memory of a field of this side in px, as measured."""

    @property
    def extras(self) -> tuple[str, ...]:
        """Files beside the lists that `write_extras` writes."""

    def write_extras(self, folder: Path) -> None:
        """Write what the picks refer to."""


@dataclass(frozen=True, kw_only=True)
class LogPicker:
    """Blobs without a lens, or RELION's algorithm."""

    parameters: LogParameters

    @property
    def name(self) -> str:
        """The command."""
        return "pick log"

    @property
    def score(self) -> PickScore:
        """A z-score, or RELION's figure."""
        return RELION_FIGURE if self.parameters.mode == "relion" else Z_SCORE

    @property
    def ctf(self) -> PickingCtfParameters | None:
        """Where the CTF comes from, if the mode uses it."""
        uses = self.parameters.mode == "relion" and self.parameters.value("use_ctf")
        return PickingCtfParameters(ctf="table") if uses else None

    @property
    def largest_diameter(self) -> float:
        """Of a particle, A."""
        return self.parameters.max_diameter

    def record(self) -> dict[str, Any]:
        """All values that act in this mode."""
        return self.parameters.resolved()

    def pick(self, micrograph: Tensor, *, pixel_size: float, ctf: FieldCtf | None) -> FieldPicks:
        """Pick one field in the mode asked for."""
        if self.parameters.mode == "relion":
            return pick_log_relion(
                micrograph, pixel_size=pixel_size, parameters=self.parameters, ctf=ctf
            )
        return pick_log(micrograph, pixel_size=pixel_size, parameters=self.parameters)

    def field_bytes(self, side: int, pixel_size: float) -> int:
        """So much a pixel, and more a working pixel."""
        if self.parameters.mode == "relion":
            work = working_size(side, pixel_size=pixel_size, parameters=self.parameters)
            return 20 * side**2 + 4 * (len(scale_diameters(self.parameters)) + 8) * work**2
        binning = max(1.0, self.parameters.min_diameter / 12 / pixel_size)
        return 30 * side**2 + int(250 * (side / binning) ** 2)

    @property
    def extras(self) -> tuple[str, ...]:
        """None."""
        return ()

    def write_extras(self, folder: Path) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class BlobPicker:
    """Matched filters for simple shapes; both diameters are known."""

    parameters: BlobParameters
    estimate: DiameterEstimate | None = None  # of the diameters, where nobody gave them

    @property
    def name(self) -> str:
        """The command."""
        return "pick blob"

    @property
    def score(self) -> PickScore:
        """A z-score."""
        return Z_SCORE

    @property
    def largest_diameter(self) -> float:
        """Of a particle, A."""
        return self.parameters.max_diameter or 0.0

    def record(self) -> dict[str, Any]:
        """All values."""
        return self.parameters.to_dict()

    def pick(self, micrograph: Tensor, *, pixel_size: float, ctf: FieldCtf | None) -> FieldPicks:
        """Pick one field."""
        return pick_blob(micrograph, pixel_size=pixel_size, parameters=self.parameters, ctf=ctf)

    def field_bytes(self, side: int, pixel_size: float) -> int:
        """So much a pixel, and so much a working pixel for each shape of the bank."""
        low, high = self.parameters.min_diameter or 1.0, self.parameters.max_diameter or 1.0
        shapes = self.parameters.shape_names
        count = count_filters(shapes=shapes, min_diameter=low, max_diameter=high)
        binning = max(1.0, working_pixel_size(self.parameters) / pixel_size)
        return 30 * side**2 + int((200 + 45 * count) * (side / binning) ** 2)

    @property
    def extras(self) -> tuple[str, ...]:
        """How the diameters were estimated."""
        return ("diameter.json", "diameter.png")

    def write_extras(self, folder: Path) -> None:
        """Write how the diameters were estimated."""
        if self.estimate is not None:
            write_diameter(folder, self.estimate)


@dataclass(frozen=True, kw_only=True)
class TemplatePicker:
    """Templates at all rotations."""

    parameters: TemplateParameters
    templates: Templates
    numbers: NDArray[np.int64]  # (n,) class of each template, from 1: its place among the images
    images: NDArray[np.float32]  # (k, y, x) all that were given, particles white
    image_pixel_size: float  # A/px
    identity: str  # of what they were made from

    @property
    def name(self) -> str:
        """The command."""
        return "pick template"

    @property
    def score(self) -> PickScore:
        """A z-score."""
        return Z_SCORE

    @property
    def largest_diameter(self) -> float:
        """Of a particle, A."""
        return self.parameters.diameter

    def __getstate__(self) -> dict[str, Any]:
        """Leave the images, which may be large, behind when the picker goes to the workers."""
        return {**self.__dict__, "images": self.images[:0]}

    def record(self) -> dict[str, Any]:
        """All values, and what the templates are."""
        return {**self.parameters.to_dict(), "templates": self.identity}

    def pick(self, micrograph: Tensor, *, pixel_size: float, ctf: FieldCtf | None) -> FieldPicks:
        """Pick one field."""
        found = pick_template(
            micrograph,
            pixel_size=pixel_size,
            templates=self.templates,
            parameters=self.parameters,
            ctf=ctf,
        )
        if found.class_number is None:
            return found
        return found._replace(class_number=self.numbers[found.class_number - 1])

    def field_bytes(self, side: int, pixel_size: float) -> int:
        """So much a pixel, and more a working pixel, a function and a template."""
        return template_bytes(
            side, pixel_size, templates=self.templates, parameters=self.parameters
        )

    @property
    def extras(self) -> tuple[str, ...]:
        """The templates."""
        return ("templates.mrcs",)

    def write_extras(self, folder: Path) -> None:
        """Write the templates in the order of the classes."""
        write_mrc(folder / "templates.mrcs", self.images, pixel_size=self.image_pixel_size)


def make_template_picker(path: Path, *, parameters: TemplateParameters) -> TemplatePicker:
    """Read templates and make them ready.

    Parameters
    ----------
    path
        A stack, a table of class averages, the folder of a classification, or a map.
    parameters
        Of the picker.

    Raises
    ------
    CryopickError
        As `read_templates` and `prepare_templates` raise it, or if all images are blank or far
        from the size of a particle. Some blank ones, as empty classes have, are left out, and
        the others keep their numbers.
    """
    images, pixel_size, _, identity = read_templates(path, parameters=parameters)
    is_blank = (images == images[:, :1, :1]).all(2).all(1)  # a class that nothing fell into
    if bool(is_blank.all()):
        raise DataError(
            str(path),
            must="hold a template with contrast",
            got=f"{len(images)} blank images",
            remedy="Choose another file",
        )
    width = images.shape[-1] * pixel_size
    if not parameters.diameter <= width <= _WIDEST * parameters.diameter:
        raise DataError(
            str(path),
            must=f"hold images from one to {_WIDEST} diameters wide ({parameters.diameter:g} A)",
            got=f"{width:.0f} A",
            remedy="Check --diameter and --template-pixel-size",
        )
    templates = prepare_templates(
        images[~is_blank],
        template_pixel_size=pixel_size,
        diameter=parameters.diameter,
        low_pass=parameters.low_pass,
    )
    return TemplatePicker(
        parameters=parameters,
        templates=templates,
        numbers=np.flatnonzero(~is_blank.numpy()) + 1,
        images=images.numpy(),
        image_pixel_size=pixel_size,
        identity=identity,
    )
