"""tfmot's Keras 2 beside this package's Keras 3: twins with the same weights, and its quantize configs."""
