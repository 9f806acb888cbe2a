"""How blur arises: kernels (the optics and the motion), camera (the sensor), recipes (a mixture as plain data)."""
