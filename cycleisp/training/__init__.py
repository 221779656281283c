"""Training: one module per stage, and the settings and checkpoints that stages share."""
