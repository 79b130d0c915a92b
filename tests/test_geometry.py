"""The numbers that RELION, IMOD and EMAN2 themselves gave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cetpick import geometry as g

finite = st.floats(-1e4, 1e4)
points = st.lists(st.tuples(finite, finite, finite), max_size=5)
sizes = st.floats(0.5, 50)


def test_relion_centred_numbers() -> None:
    relion = {"binning": 2.5, "size": (300, 300, 200), "pixel_size": 2.0}
    voxels = [(40, 72, 28), (80, 36, 52)]
    centred = [(-100, 60, -60), (100, -120, 60)]
    np.testing.assert_allclose(g.voxel_to_relion_centred(voxels, **relion), centred)
    np.testing.assert_allclose(g.relion_centred_to_voxel(centred, **relion), voxels)


def test_imod_counts_x_and_y_from_the_edge() -> None:
    np.testing.assert_array_equal(g.voxel_to_imod((0, 0, 0)), [(0.5, 0.5, 0)])
    np.testing.assert_array_equal(g.imod_to_voxel((22.5, 8.5, 3)), [(22, 8, 3)])


@pytest.mark.parametrize(("pixel", "origin", "expected"), [(20.0, 0.0, 5.25), (10.0, -100.0, 0.5)])
def test_imod_moves_models_between_volumes(pixel: float, origin: float, expected: float) -> None:
    moved = g.imod_to_other_volume(
        (10.5, 10.5, 10.5), scale=(10, 10, 10), translation=(0, 0, 0), voxel_size=pixel, origin=(origin,) * 3
    )
    np.testing.assert_allclose(moved, [(expected,) * 3])


def test_rescale_maps_the_pair_of_voxels_to_the_one_between_them() -> None:
    np.testing.assert_allclose(g.rescale((0.5, 2.5, 3.0), from_voxel_size=5, to_voxel_size=10), [(0, 1, 1.25)])


def test_eman_with_and_without_unbinned_pixel_size() -> None:
    size = {"size": (101, 100, 30), "voxel_size": 10.0}
    np.testing.assert_allclose(g.eman_to_voxel((-8, 16, 0), apix_unbin=2.5, **size), [(48, 54, 15)])
    np.testing.assert_allclose(g.eman_to_voxel((48, 54, 15), apix_unbin=None, **size), [(48, 54, 15)])


@given(points, sizes, sizes)
def test_every_mapping_has_its_inverse(xyz: list[tuple[float, float, float]], a: float, b: float) -> None:
    size = (301, 300, 77)
    relion = {"binning": a, "size": size, "pixel_size": b}
    eman = {"size": size, "voxel_size": a, "apix_unbin": b}
    there_and_back = [
        g.imod_to_voxel(g.voxel_to_imod(xyz)),
        g.rescale(g.rescale(xyz, from_voxel_size=a, to_voxel_size=b), from_voxel_size=b, to_voxel_size=a),
        g.relion_unbinned_to_voxel(g.voxel_to_relion_unbinned(xyz, binning=a), binning=a),
        g.relion_centred_to_voxel(g.voxel_to_relion_centred(xyz, **relion), **relion),
        g.eman_to_voxel(g.voxel_to_eman(xyz, **eman), **eman),
    ]
    for result in there_and_back:
        np.testing.assert_allclose(result, g.as_points(xyz), atol=1e-6)


def test_a_pair_of_equal_dynamo_and_relion_angles() -> None:
    # From the tests of eulerangles: they give identical reconstructions in the two programs.
    dynamo, relion = [[-47.2730, 1.1777, -132.3000]], [[137.7000, 1.1777, 42.7270]]
    np.testing.assert_allclose(g.convert_angles(dynamo, source="dynamo", target="relion"), relion, atol=1e-6)
    np.testing.assert_allclose(g.convert_angles(relion, source="relion", target="dynamo"), dynamo, atol=1e-6)


def test_matrix_of_relion_angles_is_that_of_euler_angles2matrix() -> None:
    a, b, c = np.radians([10.0, 20.0, 30.0])
    first = [
        np.cos(c) * np.cos(b) * np.cos(a) - np.sin(c) * np.sin(a),
        np.cos(c) * np.cos(b) * np.sin(a) + np.sin(c) * np.cos(a),
        -np.cos(c) * np.sin(b),
    ]
    np.testing.assert_allclose(g.angles_to_matrices([[10, 20, 30]])[0][0], first)


def test_tom_angles_turn_the_reference_by_phi_then_theta_then_psi() -> None:
    relion = g.convert_angles([[90, 90, 0]], source="tom", target="relion")
    # x goes to y (phi about z), then to z (theta about x).
    np.testing.assert_allclose(g.rotate_by_angles([[1, 0, 0]], relion), [[0, 0, 1]], atol=1e-12)
    relion = g.convert_angles([[0, 0, 90]], source="tom", target="relion")
    np.testing.assert_allclose(g.rotate_by_angles([[1, 0, 0]], relion), [[0, 1, 0]], atol=1e-12)


euler = st.lists(st.tuples(*[st.floats(-360, 360)] * 3), max_size=5)
conventions = st.sampled_from(["relion", "dynamo", "tom"])


@given(euler, conventions, conventions)
def test_orientations_survive_every_convention(angles: list[tuple[float, float, float]], a: str, b: str) -> None:
    there = g.convert_angles(angles, source=a, target=b)
    back = g.convert_angles(there, source=b, target=a)
    expected, found = (
        g.angles_to_matrices(g.convert_angles(each, source=a, target="relion")) for each in (g.as_points(angles), back)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(
        g.angles_to_matrices(g.matrices_to_angles(g.angles_to_matrices(angles))),
        g.angles_to_matrices(angles),
        atol=1e-6,
    )


def test_mirrors_and_other_matrices_are_no_orientations() -> None:
    for matrix in (np.diag([1, 1, -1]), 2 * np.eye(3), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="rotation"):
            g.matrices_to_angles([matrix])
