"""Benchmarks whose numbers can be trusted: every sample kept, warm-up left out, order interleaved.

    configurations x frames -> measure -> Report -> table, JSON, CSV, HTML; two reports -> compare

A report records the machine, the versions, the power mode and the bundle's hash, because without
them a latency means nothing.
"""
