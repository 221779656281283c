"""Calibration without torch: sets of tiles that INT8 networks take their scales from.

*Later:* a sensor's noise from its own flat and dark frames.
"""
