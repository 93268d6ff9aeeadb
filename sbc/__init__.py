"""Portcullis: the signalling plane of a Session Border Controller and everything above it."""

__version__ = "0.1.0"

from sbc import compiled

compiled.choose()
