"""Later: a sensor's noise from its own frames, and sets for INT8."""
