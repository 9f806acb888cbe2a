"""How blur arises: kernels and scene (optics and motion), camera (the sensor), recipes (a mixture as plain data)."""
