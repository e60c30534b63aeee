"""Classify from whichever of image, sound and text happen to be there, and serve it."""

__version__ = "0.2.0"
