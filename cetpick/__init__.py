"""cetpick: a particle picker for cryo-electron tomograms that learns from a few labels."""

__version__ = "0.1.0"
