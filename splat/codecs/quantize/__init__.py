"""Quantization and entropy coding, for the codecs and for training.

centroids, labels = kmeans(points, 4096, seed=0)          # [K, D], [N]
labels = assign(points, centroids)                        # exact; penalties = lam * bits for a rate term
centroids, labels, bits = ecvq(points, 4096, lam)         # entropy-constrained
codebook = scalar_codebook(values, 256); nearest_scalar(values, codebook)
codebook = even_codebook(values, 256, step=0.01)          # for values that are entropy-coded afterwards
data = range_encode(labels, counts); range_decode(data, counts, n)
data = encode_indices(labels, 4096); decode_indices(data, 4096, n)   # the counts go with them
data = encode_integers(differences); decode_integers(data, n)
data = mixing_encode(labels, 4096, near, side); mixing_decode(data, 4096, n, near, side)   # by their neighbours'
data = guided_encode(labels, tables, known); guided_decode(data, tables, known)   # by what similar things hold
near = nearest_before(cells); order = tree_order(centroids, counts)   # for mixing_encode
order = morton_order(means); order = grid_order(features, width)       # on a line, on a plane
"""

from splat.codecs.quantize.clusters import accumulate, assign, ecvq, kmeans
from splat.codecs.quantize.composite import product_decode, product_kmeans, residual_decode, residual_kmeans
from splat.codecs.quantize.entropy import (
    decode_indices,
    decode_integers,
    encode_indices,
    encode_integers,
    range_decode,
    range_encode,
)
from splat.codecs.quantize.grid import grid_order
from splat.codecs.quantize.guided import (
    gaps,
    guided_decode,
    guided_encode,
    halved,
    most_alike,
    nearest_among,
)
from splat.codecs.quantize.mixing import (
    first_digits,
    mixing_decode,
    mixing_encode,
    nearest_before,
    tree_order,
)
from splat.codecs.quantize.order import morton_codes, morton_order
from splat.codecs.quantize.scalar import even_codebook, nearest_scalar, scalar_codebook

__all__ = [
    "accumulate",
    "assign",
    "decode_indices",
    "decode_integers",
    "ecvq",
    "encode_indices",
    "encode_integers",
    "even_codebook",
    "first_digits",
    "gaps",
    "grid_order",
    "guided_decode",
    "guided_encode",
    "halved",
    "kmeans",
    "mixing_decode",
    "mixing_encode",
    "morton_codes",
    "morton_order",
    "most_alike",
    "nearest_among",
    "nearest_before",
    "nearest_scalar",
    "product_decode",
    "product_kmeans",
    "range_decode",
    "range_encode",
    "residual_decode",
    "residual_kmeans",
    "scalar_codebook",
    "tree_order",
]
