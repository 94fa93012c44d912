"""A surface from a density: marching tetrahedra (Doi & Koide 1991), which is marching cubes with
fewer cases. Each cube is cut into six tetrahedra, in which the surface is a triangle or two.

Letters: G grid points along an axis, N corners, M triangles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

CORNERS = np.array([(i >> 2 & 1, i >> 1 & 1, i & 1) for i in range(8)])
TETRAHEDRA = np.array(
    [(0, 1, 3, 7), (0, 3, 2, 7), (0, 2, 6, 7), (0, 6, 4, 7), (0, 4, 5, 7), (0, 5, 1, 7)]
)
"""Six around the diagonal from corner 0 to corner 7, all of one orientation."""
EDGES = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
CASES: dict[int, list[tuple[int, int, int]]] = {
    1: [(0, 1, 2)], 2: [(0, 4, 3)], 4: [(1, 3, 5)], 8: [(2, 5, 4)],
    3: [(1, 2, 4), (1, 4, 3)], 5: [(0, 3, 5), (0, 5, 2)], 9: [(0, 1, 5), (0, 5, 4)],
}  # fmt: skip
"""For the corners of a tetrahedron that lie inside, as bits: triangles between edges. The other
half are the complements, turned round."""


def isosurface(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The surface where values (G, G, G) pass `level`.

    Returns:
        Places (N, 3) in units of the grid, float64, and triangles int64 (M, 3), turned so that
        their normals point to smaller values. Each place is there once, so that the surface of a
        body inside the grid is closed.
    """
    side = np.array(values.shape)
    cubes = np.stack(np.meshgrid(*(np.arange(n - 1) for n in side), indexing="ij"), -1)
    inside = values > level
    count = sum(
        inside[a : side[0] - 1 + a, b : side[1] - 1 + b, c : side[2] - 1 + c].astype(int)
        for a, b, c in CORNERS
    )
    cubes = cubes[(count > 0) & (count < 8)].reshape(-1, 3)
    numbers = np.ravel_multi_index((cubes[:, None] + CORNERS).reshape(-1, 3).T, values.shape)
    tetrahedra = numbers.reshape(-1, 8)[:, TETRAHEDRA].reshape(-1, 4)
    flat = values.reshape(-1).astype(np.float64)
    bits = ((flat[tetrahedra] > level) * (1, 2, 4, 8)).sum(axis=1)
    ends = []
    for case in range(1, 15):
        turned = case not in CASES
        for triangle in CASES[15 - case if turned else case]:
            edges = EDGES[list(triangle if turned else triangle[::-1])]  # (3, 2)
            ends.append(tetrahedra[bits == case][:, edges])
    pairs = np.sort(np.concatenate(ends), axis=-1).reshape(-1, 2)  # an edge, whoever meets it
    edges, faces = np.unique(pairs, axis=0, return_inverse=True)
    a, b = flat[edges[:, 0]], flat[edges[:, 1]]
    share = ((level - a) / (b - a))[:, None]
    low = np.stack(np.unravel_index(edges[:, 0], values.shape), axis=1)
    high = np.stack(np.unravel_index(edges[:, 1], values.shape), axis=1)
    return low + share * (high - low), faces.reshape(-1, 3)


def save_ply(path: Path, places: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> None:
    """Write a mesh as binary PLY, which Blender and MeshLab open.

    Args:
        places: (N, 3). faces: (M, 3). colours: uint8 (N, 3), of the places.
    """
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(places)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    vertices = np.empty(len(places), [("at", "<f4", 3), ("colour", "u1", 3)])
    vertices["at"], vertices["colour"] = places, colours
    rows = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, faces
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + vertices.tobytes() + rows.tobytes())
