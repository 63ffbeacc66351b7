"""The 2D alignment engine: how well an image fits a class at every rotation and shift."""
