"""PickET's YAML file, as its page shows it, and files that are not like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryopick.errors import CryopickError
from cryopick.pipeline.tomo_segment_request import read_request, request_of

PICKET = """dataset_name: 10301

inputs:
[
    {
    tomogram: /data/tomogram_1.mrc,
    lower_z-slice_limit: 200, #[Optional]#
    upper_z-slice_limit: 300 #[Optional]#
        },
    {
    tomogram: /data/tomogram_2.mrc,
        },
]

neighborhood_size: 5

max_num_neighborhoods_for_fitting: 100_000_000

# the kinds of features
feature_extraction_params:
[
    {
    mode: ffts,
    n_fft_subsets: 64,
        },

    {
    mode: gabor,
    num_sinusoids: 10,
    num_neighborhoods_subsets: 5,
    num_parallel_filters: 8,
    num_output_features: 64
        },

    {
    mode: intensities
        }
]

clustering_methods: [kmeans, gmm]

output_dir: /data/picket_results/
"""


def read(tmp_path, text=PICKET, **more):
    (tmp_path / "parameters.yaml").write_text(text)
    return read_request([str(tmp_path / "parameters.yaml")], **more)


def test_every_key_of_pickets_file_keeps_its_meaning(tmp_path):
    request = read(tmp_path)

    assert request.folder == Path("/data/picket_results/10301")
    assert [(i.path.name, i.lower_z, i.upper_z) for i in request.inputs] == [
        ("tomogram_1.mrc", 200, 300),
        ("tomogram_2.mrc", None, None),
    ]
    assert request.parameters.neighborhood_size == 5
    assert request.parameters.max_num_neighborhoods_for_fitting == 100_000_000
    ffts, gabor, intensities = request.features
    assert (ffts.mode, ffts.n_fft_subsets) == ("ffts", 64)
    assert (gabor.num_sinusoids, gabor.num_neighborhoods_subsets) == (10, 5)
    assert (gabor.num_parallel_filters, gabor.num_output_features) == (8, 64)
    assert intensities.mode == "intensities"
    assert request.methods == ("kmeans", "gmm")


def test_the_same_file_in_block_style_says_the_same(tmp_path):
    block = """
dataset_name: 10301
inputs:
  - tomogram: /data/tomogram_1.mrc
    lower_z-slice_limit: 200
    upper_z-slice_limit: 300
  - tomogram: /data/tomogram_2.mrc
neighborhood_size: 5
max_num_neighborhoods_for_fitting: 100000000
feature_extraction_params:
- {mode: ffts, n_fft_subsets: 64}
- mode: gabor
  num_sinusoids: 10
  num_neighborhoods_subsets: 5
  num_parallel_filters: 8
  num_output_features: 64
- mode: intensities
clustering_methods:
- kmeans
- gmm
output_dir: /data/picket_results/
"""

    assert read(tmp_path, block) == read(tmp_path)


def test_options_take_the_place_of_values_in_the_file(tmp_path):
    request = read(
        tmp_path,
        changes={"neighborhood_size": 7},
        batch={"n_fft_subsets": 2},
        folder=tmp_path / "out",
        feature=["ffts", "intensities"],
        clustering=["gmm"],
        limits=(5, None),
    )

    assert request.parameters.neighborhood_size == 7
    assert request.parameters.max_num_neighborhoods_for_fitting == 100_000_000
    assert [(f.mode, f.n_fft_subsets) for f in request.features] == [
        ("ffts", 2),
        ("intensities", 1),
    ]
    assert request.methods == ("gmm",)
    assert request.folder == tmp_path / "out"
    assert [(i.lower_z, i.upper_z) for i in request.inputs] == [(5, None)] * 2


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("neighborhood_size: 5", "neighborhod_size: 5", "neighborhod_size must be a key"),
        ("lower_z-slice_limit", "lower_z_slice_limit", "lower_z_slice_limit must be a key"),
        ("n_fft_subsets: 64", "num_sinusoids: 64", "a key that the mode ffts knows"),
        ("neighborhood_size: 5", "neighborhood_size: 5.5", "be a whole number; got 5.5"),
        ("neighborhood_size: 5", "neighborhood_size: yes", "be a whole number; got True"),
        ("neighborhood_size: 5", "neighborhood_size: 6", "be odd; got 6 voxels. Try 7"),
        ("100_000_000", "1e8", "be a whole number; got '1e8'"),
        ("mode: ffts", "mode: fft", "mode must be one of ffts, gabor, intensities; got fft"),
        ("[kmeans, gmm]", "[kmeans, gnm]", "be of kmeans, gmm; got gnm"),
        ("[kmeans, gmm]", "kmeans", "clustering_methods must be a list; got 'kmeans'"),
        ("[kmeans, gmm]", "[gmm, gmm]", "name each once; got gmm twice"),
        ("tomogram: /data/tomogram_2.mrc,", "", "have the key tomogram"),
        ("dataset_name: 10301", "", "have the key dataset_name"),
        ("output_dir: /data", "output_dir: [/data", "be a YAML file; got"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path, old, new, sentence):
    assert old in PICKET

    with pytest.raises(CryopickError) as error:
        read(tmp_path, PICKET.replace(old, new))

    assert sentence in str(error.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(CryopickError, match="no such file"):
        read_request([str(tmp_path / "none.yaml")])


def test_tomograms_alone_need_a_folder():
    with pytest.raises(CryopickError, match="out must be given"):
        request_of(["a.mrc"], changes={}, batch={}, folder=None)
