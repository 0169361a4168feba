"""The world of the sample scene: analytic shapes, procedural textures, one sun. World frame: z up, floor at z = 0.

Everything works on rays in bulk: origins and unit directions are [R, 3] arrays, hits come back as distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat.data.sample_shapes import Array, Box, Column, Dome, Floor, Rod, Shape, Sphere, Torus, dot, rotation

_EPSILON = 1e-4  # shadow and reflection rays start this far off the surface, world units
_SUN = np.array([0.45, -0.35, 0.82]) / np.linalg.norm([0.45, -0.35, 0.82])
_SUN_LIGHT = np.array([1.0, 0.95, 0.85]) * 0.80
_SKY_LIGHT = np.array([0.75, 0.85, 1.0]) * 0.42
_BOUNCE_LIGHT = np.array([1.0, 0.9, 0.8]) * 0.18
DOME_RADIUS = 8.0


class Noise:
    """Smooth value noise in [0, 1] on a random lattice that repeats every 64 cells."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._lattice = generator.random((64, 64)).astype(np.float32)

    def __call__(self, x: Array, y: Array) -> Array:
        ix, iy = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = x - ix, y - iy
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        lattice, x0, x1, y0, y1 = self._lattice, ix & 63, (ix + 1) & 63, iy & 63, (iy + 1) & 63
        low = lattice[x0, y0] * (1 - fx) + lattice[x1, y0] * fx
        high = lattice[x0, y1] * (1 - fx) + lattice[x1, y1] * fx
        return low * (1 - fy) + high * fy


@dataclass(frozen=True)
class Body:
    """A shape and how it looks.

    Attributes:
        albedo: points [R, 3] -> diffuse linear colour [R, 3].
        gloss: strength of the sun's highlight.
        mirror: share of the surroundings that it reflects when seen head on.
    """

    shape: Shape
    albedo: Callable[[Array], Array]
    gloss: float = 0.0
    mirror: float = 0.0


class World:
    """Bodies under one sun.

    Attributes:
        bodies: the dome is the last one.
    """

    def __init__(self, bodies: list[Body], together: range) -> None:
        """
        Args:
            together: numbers of small bodies that lie close together; rays are tested against them all at once.
        """
        self.bodies = bodies
        around = [(number, bounds) for number, body in enumerate(bodies) if (bounds := body.shape.bounds())]
        self._groups = [(bounds, [number]) for number, bounds in around if number not in together]
        members = [(number, bounds) for number, bounds in around if number in together]
        centre = np.mean([centre for _, (centre, _) in members], axis=0)
        radius = max(float(np.linalg.norm(c - centre)) + r for _, (c, r) in members)
        self._groups.append(((centre, radius), [number for number, _ in members]))

    def hit(self, origins: Array, directions: Array) -> tuple[Array, NDArray[np.int64]]:
        """Distance of the first hit and the number of the body, per ray; inf and -1 where there is none."""
        nearest = np.full(len(origins), np.inf, origins.dtype)
        body = np.full(len(origins), -1, np.int64)
        for number, rays in self._candidates(origins, directions):
            distance = self.bodies[number].shape.hit(origins[rays], directions[rays])
            closer = distance < nearest[rays]
            nearest[rays[closer]], body[rays[closer]] = distance[closer], number
        return nearest, body

    def shadowed(self, points: Array) -> Array:
        """[R] bool: whether the sun is hidden from the points."""
        hidden = np.zeros(len(points), bool)
        sun = np.broadcast_to(_SUN.astype(points.dtype), points.shape)
        for number, rays in self._candidates(points, sun):
            if self.bodies[number].shape.bounds() is not None:  # the floor and the dome hide nothing
                hidden[rays] |= np.isfinite(self.bodies[number].shape.hit(points[rays], sun[rays]))
        return hidden

    def _candidates(self, origins: Array, directions: Array) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Numbers of bodies with the rays that come near them."""
        everything = np.arange(len(origins))
        for (centre, radius), members in self._groups:
            rays = _passing(centre, radius, origins, directions)
            o, d = origins[rays], directions[rays]
            for number in members:
                bounds = self.bodies[number].shape.bounds()
                if len(rays) and bounds is not None:
                    yield number, rays[_passing(bounds[0], bounds[1], o, d)] if len(members) > 1 else rays
        for number, body in enumerate(self.bodies):
            if body.shape.bounds() is None:
                yield number, everything

    def normals(self, points: Array, body: NDArray[np.int64]) -> Array:
        """[R, 3] unit normals at hit points of the given bodies."""
        normals = np.zeros_like(points)
        for number, candidate in enumerate(self.bodies):
            rays = np.flatnonzero(body == number)
            if len(rays):
                normals[rays] = candidate.shape.normal(points[rays])
        return normals

    def shade(
        self, origins: Array, directions: Array, bounces: int = 1
    ) -> tuple[Array, Array, NDArray[np.int64]]:
        """Linear colour [R, 3], distance [R] and body [R] of what the rays see."""
        distance, body = self.hit(origins, directions)
        points = origins + distance[:, None] * directions
        normals = self.normals(points, body)
        colour = np.empty_like(points)
        for number, candidate in enumerate(self.bodies):
            rays = np.flatnonzero(body == number)
            if len(rays):
                colour[rays] = candidate.albedo(points[rays])
        dome = len(self.bodies) - 1
        lit = np.flatnonzero(body != dome)  # the dome shines by itself
        colour[lit] *= self._light(
            points[lit], normals[lit], directions[lit], body[lit], colour[lit], bounces
        )
        return colour, distance, body

    def _light(self, points, normals, directions, body, albedo, bounces) -> Array:
        """What to multiply the albedo by, so that highlights and reflections are added to it."""
        facing = (normals @ _SUN.astype(points.dtype)).clip(0)
        off = points + _EPSILON * normals
        facing[self.shadowed(off)] = 0
        up = 0.5 + 0.5 * normals[:, 2:3]
        sun, sky, bounce = (light.astype(points.dtype) for light in (_SUN_LIGHT, _SKY_LIGHT, _BOUNCE_LIGHT))
        light = facing[:, None] * sun + up * sky + (1 - up) * bounce
        gloss = np.array([candidate.gloss for candidate in self.bodies])[body]
        mirror = np.array([candidate.mirror for candidate in self.bodies])[body]
        shiny = np.flatnonzero((gloss > 0) | (mirror > 0))
        if len(shiny):
            n, d = normals[shiny], directions[shiny]
            reflected = d - 2 * dot(d, n)[:, None] * n
            added = np.zeros((len(shiny), 3), points.dtype)
            peak = (reflected @ _SUN.astype(points.dtype)).clip(0) ** 60
            added += (gloss[shiny] * peak * (facing[shiny] > 0))[:, None] * sun
            rays = np.flatnonzero(mirror[shiny] > 0) if bounces else np.empty(0, np.int64)
            if len(rays):
                seen, _, _ = self.shade(off[shiny[rays]], reflected[rays], bounces - 1)
                # Schlick's approximation: everything mirrors at grazing angles.
                grazing = (1 + dot(d[rays], n[rays])).clip(0, 1) ** 5
                share = mirror[shiny[rays]] + (1 - mirror[shiny[rays]]) * grazing
                added[rays] += share[:, None] * seen
            light[shiny] += added / albedo[shiny].clip(1e-3)
        return light


def _passing(centre: Array, radius: float, origins: Array, directions: Array) -> NDArray[np.int64]:
    """The rays that pass through a sphere in front of them."""
    to = centre.astype(origins.dtype) - origins
    along = dot(to, directions)
    apart2 = dot(to, to) - along * along
    return np.flatnonzero((apart2 <= radius * radius * 1.001) & (along > -radius))


def to_srgb(linear: Array) -> Array:
    """sRGB values in [0, 1] of linear ones (IEC 61966-2-1), clipped."""
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def build_world(seed: int) -> World:
    """The sample world; the seed varies its textures."""
    noise = Noise(np.random.default_rng(seed))
    cube = Box(np.array([-0.78, 0.42, 0.40]), rotation(2, 28).T, np.full(3, 0.40))
    ring_axes = (rotation(2, 20) @ rotation(0, 62)).T
    ring = Torus(np.array([-0.35, -0.92, 0.50]), ring_axes, 0.36, 0.13)
    column = Column(np.array([0.92, -0.48]), 0.24, 1.05)
    ball = Sphere(np.array([0.42, 0.72, 0.50]), 0.50)
    marble = Sphere(np.array([0.30, -0.62, 0.20]), 0.20)
    apex = np.array([0.0, 0.0, 1.45])
    feet = [np.array([0.30 * np.cos(a), 0.30 * np.sin(a), 0.0]) for a in np.radians([15, 105, 195, 285])]
    wires = [(foot, apex) for foot in feet]
    for share in (0.35, 0.65):  # hoops of the mast
        corners = [foot + share * (apex - foot) for foot in feet]
        wires += [(corners[i], corners[(i + 1) % 4]) for i in range(4)]
    steel = _plain(0.16, 0.17, 0.19)
    bodies = [
        Body(Floor(), lambda p: _tiles(p, noise), mirror=0.02),
        Body(cube, lambda p: _stickers(cube.local(p) / cube.half)),
        Body(ball, _plain(0.10, 0.16, 0.24), gloss=2.0, mirror=0.45),
        Body(ring, lambda p: _candy(ring.local(p)), gloss=0.9, mirror=0.05),
        Body(column, lambda p: _spiral(p, column)),
        Body(marble, lambda p: _marble(p, noise), gloss=0.6, mirror=0.04),
        *(Body(Rod(start, end, 0.013), steel, gloss=0.5) for start, end in wires),
        Body(Sphere(apex, 0.07), _plain(0.85, 0.12, 0.08), gloss=1.0, mirror=0.05),
        Body(Dome(DOME_RADIUS), lambda p: _sky(p, noise)),
    ]
    mast = range(6, 6 + len(wires) + 1)
    return World(bodies, mast)


def _plain(red: float, green: float, blue: float) -> Callable[[Array], Array]:
    colour = np.array([red, green, blue])
    return lambda points: np.broadcast_to(colour.astype(points.dtype), points.shape)


def _mix(low, high, share: Array) -> Array:
    low, high = np.asarray(low, share.dtype), np.asarray(high, share.dtype)
    return low + (high - low) * share[:, None]


def _tiles(p: Array, noise: Noise) -> Array:
    """Two-coloured tiles with joints and stains, fading to plain ground where they would alias."""
    x, y = p[:, 0] / 0.5, p[:, 1] / 0.5
    odd = ((np.floor(x) + np.floor(y)) % 2).astype(p.dtype)
    joint = np.minimum(np.abs(x - np.round(x)), np.abs(y - np.round(y))) < 0.03
    stain = noise(p[:, 0] * 2.3 + 7, p[:, 1] * 2.3) * 0.6 + noise(p[:, 0] * 9, p[:, 1] * 9 + 3) * 0.4
    tiles = _mix([0.46, 0.38, 0.30], [0.72, 0.66, 0.56], odd) * (0.65 + 0.55 * stain)[:, None]
    tiles[joint] = (0.20, 0.18, 0.17)
    far = ((np.hypot(p[:, 0], p[:, 1]) - 2.2) / 1.5).clip(0, 1)
    ground = _mix([0.34, 0.33, 0.26], [0.46, 0.44, 0.36], noise(p[:, 0] * 1.1, p[:, 1] * 1.1))
    return tiles + (ground - tiles) * far[:, None]


_STICKERS = np.array(
    [
        [0.75, 0.05, 0.05],
        [0.85, 0.30, 0.02],
        [0.02, 0.35, 0.10],
        [0.03, 0.10, 0.55],
        [0.85, 0.70, 0.05],
        [0.8] * 3,
    ]
)


def _stickers(local: Array) -> Array:
    """A puzzle cube: 3 x 3 stickers a face; a third of them from other faces."""
    axis = np.abs(local).argmax(1)
    side = (local[np.arange(len(local)), axis] > 0).astype(np.int64)
    u = local[np.arange(len(local)), (axis + 1) % 3] * 1.4999 + 1.5
    v = local[np.arange(len(local)), (axis + 2) % 3] * 1.4999 + 1.5
    face = axis * 2 + side
    cell = np.floor(u).clip(0, 2).astype(np.int64) * 3 + np.floor(v).clip(0, 2).astype(np.int64)
    turned = (face * 7 + cell * 5) % 3 == 0
    colour = _STICKERS[np.where(turned, (face * 5 + cell * 11 + 2) % 6, face)].astype(local.dtype)
    edge = np.maximum(np.abs(u - np.floor(u) - 0.5), np.abs(v - np.floor(v) - 0.5)) > 0.43
    colour[edge] = (0.02, 0.02, 0.02)
    return colour


def _candy(local: Array) -> Array:
    """Stripes that wind around the ring."""
    around = np.arctan2(local[:, 1], local[:, 0])
    across = np.arctan2(local[:, 2], np.hypot(local[:, 0], local[:, 1]) - 0.36)
    wave = np.sin(9 * around + 2 * across)
    return _mix([0.02, 0.42, 0.45], [0.90, 0.88, 0.80], (wave * 6 + 0.5).clip(0, 1))


def _spiral(p: Array, column: Column) -> Array:
    """A barber's pole with a brass cap."""
    angle = np.arctan2(p[:, 1] - column.centre[1], p[:, 0] - column.centre[0])
    wave = np.sin(2 * angle + p[:, 2] * 14)
    colour = _mix([0.62, 0.04, 0.06], [0.85, 0.84, 0.82], (wave * 8 + 0.5).clip(0, 1))
    colour[(wave > 0.93)] = (0.05, 0.08, 0.40)
    colour[(p[:, 2] > column.height - 0.06) | (p[:, 2] < 0.06)] = (0.60, 0.42, 0.10)
    return colour


def _marble(p: Array, noise: Noise) -> Array:
    vein = np.sin(14 * p[:, 0] + 10 * p[:, 2] + 6 * noise(p[:, 0] * 8 + 20, p[:, 2] * 8 + p[:, 1] * 5))
    return _mix([0.10, 0.40, 0.16], [0.70, 0.85, 0.62], 0.5 + 0.5 * vein)


def _sky(p: Array, noise: Noise) -> Array:
    """Hills under an evening sky: a textured backdrop at a finite distance."""
    height = p[:, 2] / DOME_RADIUS
    # Clouds lie on a plane overhead, so that they neither pinch at the zenith nor stretch around it.
    x, y = p[:, 0] / (p[:, 2] + 3), p[:, 1] / (p[:, 2] + 3)
    cloud = noise(x * 2.5 + 9, y * 2.5) * 0.6 + noise(x * 6, y * 6 + 5) * 0.4
    cloud = (cloud * 2.4 - 1.0).clip(0, 1) * (height * 5).clip(0, 1)
    sky = _mix([0.92, 0.70, 0.50], [0.16, 0.34, 0.66], (height * 1.7).clip(0, 1) ** 0.7)
    sky = sky + (np.array([0.95, 0.93, 0.92], p.dtype) - sky) * (0.75 * cloud)[:, None]
    # 64 lattice cells around: the ridge closes on itself.
    around = np.arctan2(p[:, 1], p[:, 0]) / (2 * np.pi) * 64
    ridge = 0.05 + 0.10 * noise(around * 0.5 + 32, np.full_like(around, 3.0))
    hill = height < ridge
    sky[hill] = _mix([0.10, 0.20, 0.12], [0.24, 0.34, 0.22], noise(around[hill] * 2, height[hill] * 60))
    return sky
