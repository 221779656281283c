"""From a trained network in PyTorch to a bundle that runs without it."""
