"""Errors that a user may meet, each with the exit code of the command.

The first line of a message names the cause, the path and the remedy; further lines give detail.
Anything that is not a SplatError is a defect of ours and exits with 1.
"""

from __future__ import annotations


class SplatError(Exception):
    """A failure with a message for the user. ``exit_code`` is what the command returns."""

    exit_code = 1


class UsageError(SplatError):
    """Options that contradict each other or name something that does not exist."""

    exit_code = 2


class DataError(SplatError):
    """A dataset or file that is missing, damaged or cannot be used."""

    exit_code = 3


class DeviceError(SplatError):
    """The device is missing, too small or out of memory."""

    exit_code = 4


class Interrupted(SplatError):
    """The user stopped the run; the state was saved first."""

    exit_code = 130
