"""A neural head that repairs what a pruned scene renders (Yang et al. 2024, SUNDAE)."""

from splat.strategies.compensation.network import UNet
from splat.strategies.compensation.strategy import Compensation, CompensationConfig

__all__ = ["Compensation", "CompensationConfig", "UNet"]
