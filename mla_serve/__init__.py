"""Classify from whichever of image, sound and text happen to be there, and serve it."""

import os

from mla_serve import telemetry

__version__ = "0.2.0"

telemetry.switch_off(os.environ)  # here, because every process of this package comes by before it imports anything else
