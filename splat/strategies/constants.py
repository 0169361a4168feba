"""The constants of MCMC, as compiled into the native kernels; defined once, in cuda/include/splat/mcmc.h."""

from splat._native import constants as _native

NOISE_SHARPNESS: float = _native.NOISE_SHARPNESS
NOISE_OPACITY: float = _native.NOISE_OPACITY
RELOCATION_MAX: int = _native.RELOCATION_MAX
