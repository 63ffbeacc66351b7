"""Files that cannot be written where they should go."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.errors import OutputError
from cryopick.io.atomic import write_json, write_text
from cryopick.io.mrc import write_mrc


@pytest.mark.parametrize("below", ["a.txt", "folder/a.txt"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "text"),
        lambda path: write_json(path, {}),
        lambda path: write_mrc(path, np.zeros((2, 2), np.float32), pixel_size=1.0),
    ],
)
def test_a_path_below_a_plain_file_is_refused_in_one_sentence(tmp_path, write, below):
    blocking = tmp_path / "file"
    blocking.write_text("kept")

    with pytest.raises(OutputError) as refused:
        write(blocking / below)

    sentence = f"{blocking / below} must lie in a folder; got not a directory. "
    assert str(refused.value) == sentence + "Choose another --out."
    assert blocking.read_text() == "kept"
