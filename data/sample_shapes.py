"""Shapes of the sample scene: analytic, intersected by rays in bulk.

Origins and unit directions are [R, 3] arrays; hits come back as distances along the rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Shape(Protocol):
    def bounds(self) -> tuple[Array, float] | None:
        """Centre and radius of a sphere around it; None where there is no such sphere."""
        ...

    def hit(self, origins: Array, directions: Array) -> Array:
        """[R] distance of the first hit in front, inf where there is none."""
        ...

    def normal(self, points: Array) -> Array:
        """[R, 3] unit outward normal at points on the surface."""
        ...


@dataclass(frozen=True)
class Sphere:
    centre: Array
    radius: float

    def bounds(self):
        return self.centre, self.radius

    def hit(self, origins, directions):
        return _sphere(origins - self.centre.astype(origins.dtype), directions, self.radius)[0]

    def normal(self, points):
        return (points - self.centre) / self.radius


@dataclass(frozen=True)
class Dome:
    """A sphere around everything, seen from inside."""

    radius: float

    def bounds(self):
        return None

    def hit(self, origins, directions):
        return _sphere(origins, directions, self.radius)[1]

    def normal(self, points):
        return -points / self.radius


@dataclass(frozen=True)
class Floor:
    """The plane z = 0."""

    def bounds(self):
        return None

    def hit(self, origins, directions):
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -origins[:, 2] / directions[:, 2]
        return np.where(distance > 0, distance, np.inf)

    def normal(self, points):
        return np.broadcast_to(np.array([0.0, 0.0, 1.0], points.dtype), points.shape)


@dataclass(frozen=True)
class Box:
    """axes: [3, 3], rows are the box's own axes; half: [3] half sizes along them."""

    centre: Array
    axes: Array
    half: Array

    def bounds(self):
        return self.centre, float(np.linalg.norm(self.half))

    def local(self, points: Array) -> Array:
        return (points - self.centre.astype(points.dtype)) @ self.axes.T.astype(points.dtype)

    def hit(self, origins, directions):
        o, d = self.local(origins), directions @ self.axes.T.astype(directions.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = (-self.half - o) / d, (self.half - o) / d
        low, high = np.minimum(a, b), np.maximum(a, b)
        near = np.maximum(np.maximum(low[:, 0], low[:, 1]), low[:, 2])
        far = np.minimum(np.minimum(high[:, 0], high[:, 1]), high[:, 2])
        return np.where((near <= far) & (near > 0), near, np.inf)

    def normal(self, points):
        local = self.local(points) / self.half
        axis = np.abs(local).argmax(1)
        return self.axes[axis] * np.sign(local[np.arange(len(local)), axis])[:, None]


@dataclass(frozen=True)
class Column:
    """An upright cylinder on the floor, closed on top."""

    centre: Array  # [2]
    radius: float
    height: float

    def bounds(self):
        half = self.height / 2
        return np.array([*self.centre, half]), float(np.hypot(self.radius, half))

    def hit(self, origins, directions):
        o = origins[:, :2] - self.centre.astype(origins.dtype)
        d = directions[:, :2]
        a, b = dot(d, d), dot(o, d)
        disc = b * b - a * (dot(o, o) - self.radius**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            side = (-b - np.sqrt(disc)) / a
            top = (self.height - origins[:, 2]) / directions[:, 2]
        z = origins[:, 2] + side * directions[:, 2]
        side = np.where((side > 0) & (z >= 0) & (z <= self.height), side, np.inf)
        over = o + top[:, None] * d
        top = np.where((top > 0) & (dot(over, over) <= self.radius**2), top, np.inf)
        return np.fmin(side, top)

    def normal(self, points):
        flat = np.abs(points[:, 2] - self.height) < 1e-4 * self.height
        normal = np.zeros_like(points)
        normal[:, :2] = (points[:, :2] - self.centre) / self.radius
        normal[flat] = (0, 0, 1)
        return _unit(normal)


@dataclass(frozen=True)
class Rod:
    """A thin cylinder from one point to another with round ends."""

    start: Array
    end: Array
    radius: float

    def bounds(self):
        return (self.start + self.end) / 2, float(np.linalg.norm(self.end - self.start) / 2 + self.radius)

    def hit(self, origins, directions):
        start, end = self.start.astype(origins.dtype), self.end.astype(origins.dtype)
        axis, o = end - start, origins - start
        length2 = axis @ axis
        ad, ao = directions @ axis, o @ axis
        a = length2 - ad * ad
        b = length2 * dot(o, directions) - ao * ad
        c = length2 * dot(o, o) - ao * ao - self.radius**2 * length2
        with np.errstate(divide="ignore", invalid="ignore"):
            side = (-b - np.sqrt(b * b - a * c)) / a
        along = ao + side * ad
        side = np.where((side > 0) & (along >= 0) & (along <= length2), side, np.inf)
        first = _sphere(o, directions, self.radius)[0]
        second = _sphere(origins - end, directions, self.radius)[0]
        return np.fmin(side, np.fmin(first, second))

    def normal(self, points):
        axis = self.end - self.start
        along = np.clip((points - self.start) @ axis / (axis @ axis), 0, 1)
        return _unit(points - self.start - along[:, None] * axis)


@dataclass(frozen=True)
class Torus:
    """axes: [3, 3], rows are the torus's own axes, the last one through the hole."""

    centre: Array
    axes: Array
    ring: float
    tube: float

    def bounds(self):
        return self.centre, self.ring + self.tube

    def local(self, points: Array) -> Array:
        return (points - self.centre.astype(points.dtype)) @ self.axes.T.astype(points.dtype)

    def _distance(self, local: Array) -> Array:
        return np.hypot(np.hypot(local[:, 0], local[:, 1]) - self.ring, local[:, 2]) - self.tube

    def hit(self, origins, directions):
        """Sphere tracing: the distance to a torus is known in closed form, its intersections are not."""
        o, d = self.local(origins), directions @ self.axes.T.astype(directions.dtype)
        enter, leave = _sphere(o, d, self.ring + self.tube)
        result = np.full(len(o), np.inf, o.dtype)
        active = np.flatnonzero(np.isfinite(leave))
        # From inside the bounding sphere the march starts at the origin.
        at = np.where(np.isfinite(enter[active]), enter[active], 0)
        close = 1e-6 if o.dtype == np.float64 else 1e-5
        for _ in range(96):
            if not len(active):
                break
            gap = self._distance(o[active] + at[:, None] * d[active])
            done = gap < close
            result[active[done]] = at[done]
            at = at + gap
            going = ~done & (at < leave[active])
            active, at = active[going], at[going]
        return result

    def normal(self, points):
        local = self.local(points)
        flat = np.hypot(local[:, 0], local[:, 1])
        ring = np.zeros_like(local)
        ring[:, :2] = local[:, :2] / flat[:, None] * self.ring
        return _unit(local - ring) @ self.axes


def _sphere(o: Array, d: Array, radius: float) -> tuple[Array, Array]:
    """Distances at which rays enter and leave a sphere around the origin; inf where they do not, in front."""
    b = dot(o, d)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(b * b - dot(o, o) + radius * radius)
    enter, leave = -b - root, -b + root
    return np.where(enter > 0, enter, np.inf), np.where(leave > 0, leave, np.inf)


def dot(a: Array, b: Array) -> Array:
    """[R] dot products of rows; several times faster than a sum over the short axis."""
    return np.einsum("ij,ij->i", a, b)


def _unit(vectors: Array) -> Array:
    return vectors / np.sqrt(dot(vectors, vectors))[:, None]


def rotation(axis: int, degrees: float) -> Array:
    """[3, 3] rotation about a coordinate axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix
