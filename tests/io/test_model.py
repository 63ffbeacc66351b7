"""Atomic models in PDB and mmCIF, with their assemblies."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import FormatError
from cryopick.io.mmcif import read_mmcif
from cryopick.io.model import is_atomic_model, read_atomic_model

PDB = """\
HEADER    TEST
REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000       10.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000
REMARK 350 BIOMOLECULE: 2
REMARK 350 APPLY THE FOLLOWING TO CHAINS: B
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
ATOM      1  CA  ALA A   1       1.000   2.000   3.000  1.00 10.00           C
ATOM      2  HA  ALA A   1       1.500   2.000   3.000  1.00 10.00           H
ATOM      3  P     G A   2      -4.000   5.000   6.500  0.50 10.00           P
ATOM      4  N   ALA B   1       9.000   9.000   9.000  1.00 10.00           N
HETATM    5  O   HOH A 101       0.000   0.000   0.000  1.00 10.00           O
ENDMDL
ATOM      6  CA  ALA A   1       7.000   7.000   7.000  1.00 10.00           C
"""
CIF = """\
data_TEST
_entry.id TEST
_struct.title
;A title of
two lines
;
loop_
_atom_site.group_PDB
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.pdbx_PDB_model_num
ATOM C CA ALA A 1.0 2.0 3.0 1.00 1
ATOM O "O5'" G A -4.0 5.0 6.5 1.00 1
ATOM H HA ALA A 1.5 2.0 3.0 1.00 1
ATOM N N ALA B 9.0 9.0 9.0 1.00 1
ATOM C CA ALA A 7.0 7.0 7.0 1.00 2
#
_pdbx_struct_assembly_gen.assembly_id     1
_pdbx_struct_assembly_gen.oper_expression (1-2)
_pdbx_struct_assembly_gen.asym_id_list    A
#
loop_
_pdbx_struct_oper_list.id
_pdbx_struct_oper_list.type
_pdbx_struct_oper_list.matrix[1][1]
_pdbx_struct_oper_list.matrix[1][2]
_pdbx_struct_oper_list.matrix[1][3]
_pdbx_struct_oper_list.vector[1]
_pdbx_struct_oper_list.matrix[2][1]
_pdbx_struct_oper_list.matrix[2][2]
_pdbx_struct_oper_list.matrix[2][3]
_pdbx_struct_oper_list.vector[2]
_pdbx_struct_oper_list.matrix[3][1]
_pdbx_struct_oper_list.matrix[3][2]
_pdbx_struct_oper_list.matrix[3][3]
_pdbx_struct_oper_list.vector[3]
1 'identity operation' 1 0 0 0 0 1 0 0 0 0 1 0
2 'point symmetry operation' -1 0 0 10 0 -1 0 0 0 0 1 0
"""
EXPECTED = [[1.0, 2, 3], [-4, 5, 6.5], [9, -2, 3], [14, -5, 6.5]]


@pytest.mark.parametrize(("suffix", "text"), [("pdb", PDB), ("cif", CIF)])
@pytest.mark.parametrize("is_packed", [False, True])
def test_the_first_assembly_of_the_first_model_is_built(tmp_path, suffix, text, is_packed):
    path = tmp_path / f"model.{suffix}"
    path.write_text(text)
    if is_packed:
        path = tmp_path / f"model.{suffix}.gz"
        path.write_bytes(gzip.compress(text.encode()))

    model = read_atomic_model(path)

    assert is_atomic_model(path)
    np.testing.assert_allclose(model.positions, EXPECTED)
    assert model.is_nucleic.tolist() == [False, True, False, True]
    assert model.masses[0] == pytest.approx(12.011)


def test_the_occupancy_counts_as_mass(tmp_path):
    (tmp_path / "a.pdb").write_text(PDB)

    masses = read_atomic_model(tmp_path / "a.pdb").masses

    assert masses[1] == pytest.approx(30.974 / 2)


def test_without_an_assembly_all_chains_are_read(tmp_path):
    lines = [line for line in PDB.splitlines() if not line.startswith("REMARK")]
    (tmp_path / "a.ent").write_text("\n".join(lines))

    assert len(read_atomic_model(tmp_path / "a.ent").masses) == 3


def test_operations_are_multiplied_where_the_expression_says(tmp_path):
    text = CIF.replace("(1-2)", "(1,2)(2)")
    (tmp_path / "a.cif").write_text(text)

    positions = read_atomic_model(tmp_path / "a.cif").positions

    np.testing.assert_allclose(positions[:2], EXPECTED[2:])
    np.testing.assert_allclose(positions[2:], EXPECTED[:2])  # twice by half a turn


def test_values_that_run_over_lines_are_joined():
    lines = ["loop_", "_a.x", "_a.y", "1", ";long", "text", ";", "2 'it''s'", "_b.z 3"]

    tables = read_mmcif(lines, ["_a", "_b"])

    assert tables == {"_a": {"x": ["1", "2"], "y": ["longtext", "it''s"]}, "_b": {"z": ["3"]}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.pdb", "HEADER\n", "must hold atoms; got none"),
        ("a.pdb", PDB.replace("   2.000", "   two  "), "must be a PDB or mmCIF file"),
        ("a.cif", CIF.replace("9.0 1.00 1", "9.0"), "must be a PDB or mmCIF file"),
        ("a.cif", "data_X\n", "must hold atoms; got none"),
        ("missing.cif", None, "must be a readable file; got no such file"),
    ],
)
def test_broken_files_are_refused_with_their_name(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)

    with pytest.raises(FormatError, match=message) as caught:
        read_atomic_model(tmp_path / name)

    assert name in str(caught.value)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "kilodalton"), [("1aon.pdb.gz", 868), ("1bxn.pdb", 530), ("3j9i.pdb", 690)]
)
def test_real_models_have_the_mass_of_their_complex(test_data: Path, name, kilodalton):
    model = read_atomic_model(test_data / "models" / name)

    # hydrogens are 7 % of a protein, and some residues are not in the model
    assert model.masses.sum() * 1.07 / 1000 == pytest.approx(kilodalton, rel=0.1)
