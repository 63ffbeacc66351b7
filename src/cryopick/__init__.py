"""cryopick: from cryo-EM micrographs to clean particles and trustworthy 2D classes."""

__version__ = "0.1.0"
