"""Read atomic models: PDB and mmCIF files, also gzipped, as the atoms of one whole assembly.

Hydrogens and water are left out. Where a file says how to build the assembly from its chains
(BIOMT lines, _pdbx_struct_assembly_gen), the first assembly is built.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.mmcif import read_mmcif

__all__ = ["AtomicModel", "is_atomic_model", "read_atomic_model"]

_MASSES = {"C": 12.011, "N": 14.007, "O": 15.999, "P": 30.974, "S": 32.06, "SE": 78.97}
_MASSES |= {"NA": 22.99, "MG": 24.305, "CL": 35.45, "K": 39.098, "CA": 40.078, "MN": 54.938}
_MASSES |= {"FE": 55.845, "CO": 58.933, "NI": 58.693, "CU": 63.546, "ZN": 65.38, "F": 18.998}
_OTHER_MASS = 12.011  # of an element not listed
_NUCLEOTIDES = frozenset(["A", "C", "G", "U", "I", "DA", "DC", "DG", "DT", "DI"])
_WATERS = frozenset(["HOH", "WAT", "DOD", "H2O"])
_PDB, _CIF = (".pdb", ".ent"), (".cif", ".mmcif")


@dataclass(frozen=True, kw_only=True)
class AtomicModel:
    """The atoms of one assembly, but for hydrogens and water."""

    positions: NDArray[np.float64]  # (n, 3): x, y, z in A
    masses: NDArray[np.float64]  # (n,) Da, times the occupancy
    is_nucleic: NDArray[np.bool_]  # (n,)


@dataclass(frozen=True)
class _Atom:
    """One atom as a file gives it."""

    element: str
    residue: str
    chain: str
    position: tuple[float, float, float]
    occupancy: float


def is_atomic_model(path: Path) -> bool:
    """Whether the name is that of a PDB or mmCIF file."""
    return _suffix(Path(path)) in _PDB + _CIF


def read_atomic_model(path: Path) -> AtomicModel:
    """Read a PDB or mmCIF file.

    Parameters
    ----------
    path
        ``.pdb``, ``.ent``, ``.cif`` or ``.mmcif``, each also with ``.gz``. Of several models in
        a file the first is read.

    Returns
    -------
    AtomicModel
        The first assembly.

    Raises
    ------
    FormatError
        If the file cannot be read or holds no atom.
    """
    path = Path(path)
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", errors="replace") as handle:
            lines = handle.read().splitlines()
    except (OSError, EOFError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        _refuse(path, "be a readable file", reason)
    try:
        if _suffix(path) in _CIF:
            atoms, operations = _from_mmcif(lines)
        else:
            atoms, operations = _from_pdb(lines)
    except (ValueError, KeyError, IndexError) as error:
        _refuse(path, "be a PDB or mmCIF file", f"{type(error).__name__}: {error}")
    if not atoms:
        _refuse(path, "hold atoms", "none")
    return _assemble(atoms, operations)


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def _refuse(path: Path, must: str, got: str) -> NoReturn:
    raise FormatError(str(path), must=must, got=got, remedy="Check the file")


Operation = tuple[frozenset[str], NDArray[np.float64]]  # chains, and (3, 4): turn and shift


def _assemble(atoms: list[_Atom], operations: list[Operation]) -> AtomicModel:
    positions = np.array([a.position for a in atoms])
    masses = np.array([_MASSES.get(a.element, _OTHER_MASS) * a.occupancy for a in atoms])
    is_nucleic = np.array([a.residue in _NUCLEOTIDES for a in atoms])
    if not operations:
        return AtomicModel(positions=positions, masses=masses, is_nucleic=is_nucleic)
    chains = np.array([a.chain for a in atoms])
    turned, picked = [], []
    for names, matrix in operations:
        mine = np.flatnonzero(np.isin(chains, list(names))) if names else np.arange(len(atoms))
        turned.append(positions[mine] @ matrix[:, :3].T + matrix[:, 3])
        picked.append(mine)
    which = np.concatenate(picked)
    return AtomicModel(
        positions=np.concatenate(turned), masses=masses[which], is_nucleic=is_nucleic[which]
    )


def _is_wanted(element: str, residue: str) -> bool:
    return element not in ("H", "D") and residue not in _WATERS


def _from_pdb(lines: Iterable[str]) -> tuple[list[_Atom], list[Operation]]:
    atoms, remarks = [], []
    for line in lines:
        if line.startswith(("ATOM  ", "HETATM")):
            residue = line[17:20].strip()
            element = line[76:78].strip().upper() or line[12:14].strip(" 0123456789").upper()
            if _is_wanted(element, residue):
                position = (float(line[30:38]), float(line[38:46]), float(line[46:54]))
                occupancy = float(line[54:60].strip() or 1)
                atoms.append(_Atom(element, residue, line[21], position, occupancy))
        elif line.startswith("REMARK 350"):
            remarks.append(line[10:])
        elif line.startswith("ENDMDL"):
            break
    return atoms, _biomt(remarks)


def _biomt(remarks: list[str]) -> list[Operation]:
    """Operations of the first assembly."""
    operations: list[Operation] = []
    chains: set[str] = set()
    rows: list[list[float]] = []
    n_assemblies = 0
    for remark in remarks:
        head, _, rest = remark.partition(":")
        words = remark.split()
        if head.strip() == "BIOMOLECULE":
            n_assemblies += 1
            if n_assemblies > 1:
                break
        elif head.strip().endswith("APPLY THE FOLLOWING TO CHAINS"):
            chains = set(rest.replace(",", " ").split())
        elif head.strip() == "AND CHAINS":
            chains |= set(rest.replace(",", " ").split())
        elif words and words[0] in ("BIOMT1", "BIOMT2", "BIOMT3"):
            rows.append([float(w) for w in words[2:6]])
            if len(rows) == 3:
                operations.append((frozenset(chains), np.array(rows)))
                rows = []
    return operations


def _from_mmcif(lines: list[str]) -> tuple[list[_Atom], list[Operation]]:
    tables = read_mmcif(
        lines, ("_atom_site", "_pdbx_struct_assembly_gen", "_pdbx_struct_oper_list")
    )
    table = tables.get("_atom_site", {})
    if not table:
        return [], []
    count = len(table["Cartn_x"])
    blank = ["1"] * count
    models = table.get("pdbx_PDB_model_num", blank)
    columns = (
        table["type_symbol"],
        table.get("label_comp_id", blank),
        table.get("label_asym_id", blank),
        table["Cartn_x"],
        table["Cartn_y"],
        table["Cartn_z"],
        table.get("occupancy", blank),
        models,
    )
    atoms = []
    for element, residue, chain, x, y, z, occupancy, model in zip(*columns, strict=True):
        if model == models[0] and _is_wanted(element.upper(), residue):
            share = 1.0 if occupancy in ".?" else float(occupancy)
            position = (float(x), float(y), float(z))
            atoms.append(_Atom(element.upper(), residue, chain, position, share))
    return atoms, _assembly_operations(
        tables.get("_pdbx_struct_assembly_gen", {}), tables.get("_pdbx_struct_oper_list", {})
    )


def _assembly_operations(
    generations: dict[str, list[str]], listed: dict[str, list[str]]
) -> list[Operation]:
    """Operations of the first assembly."""
    if not generations or not listed:
        return []
    matrices = {}
    for row, name in enumerate(listed["id"]):
        turn = [[float(listed[f"matrix[{i}][{j}]"][row]) for j in (1, 2, 3)] for i in (1, 2, 3)]
        shift = [[float(listed[f"vector[{i}]"][row])] for i in (1, 2, 3)]
        matrices[name] = np.hstack([np.array(turn), np.array(shift)])
    operations: list[Operation] = []
    first = generations["assembly_id"][0]
    for row, assembly in enumerate(generations["assembly_id"]):
        if assembly == first:
            chains = frozenset(generations["asym_id_list"][row].replace(" ", "").split(","))
            for matrix in _expand(generations["oper_expression"][row], matrices):
                operations.append((chains, matrix))
    return operations


def _expand(expression: str, matrices: dict[str, NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Matrices of an expression such as ``1,2``, ``(1-60)`` or ``(1-5)(X0)``."""
    factors = [f.strip("( ") for f in expression.replace(" ", "").split(")") if f.strip("( ")]
    result = [np.eye(3, 4)]
    for factor in factors:
        names: list[str] = []
        for part in factor.split(","):
            low, dash, high = part.partition("-")
            span = range(int(low), int(high) + 1) if dash else ()
            names.extend(map(str, span) if dash else [part])
        result = [_compose(done, matrices[name]) for done in result for name in names]
    return result


def _compose(after: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    turn = after[:, :3] @ before[:, :3]
    shift = after[:, :3] @ before[:, 3] + after[:, 3]
    return np.hstack([turn, shift[:, None]])
