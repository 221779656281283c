"""Denoising networks for camera RAW in PyTorch: models, noise, data, training, evaluation."""
