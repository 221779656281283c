"""Torch on one thread: the tests' networks are too small for more, and results stay the same."""

import torch

torch.set_num_threads(1)
