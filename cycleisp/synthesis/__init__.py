"""Realistic noisy and clean pairs without end, from clean photographs and a camera pipeline."""
