"""Training data: clean linear RAW out of photographs, and noisy/clean pairs of it."""
