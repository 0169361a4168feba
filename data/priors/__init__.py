"""What is known of photographs besides their colours: depth, normals, masks; between two of them, flow and matches.

>>> depth = priors("depth").at(dataset, 0)                          # from depths/NAME.npy or .png
>>> depth = priors("depth", "onnx", {"model": "midas.onnx"}).at(dataset, 0)
"""

from splat.data.priors.registry import KINDS, Kind, Prior, Provider, priors, providers

__all__ = ["KINDS", "Kind", "Prior", "Provider", "priors", "providers"]
