"""Training: the only part of the package that imports Lightning (`pip install 'unblur[train]'`)."""
