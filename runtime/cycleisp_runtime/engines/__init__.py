"""TensorRT engines: a bundle's network made for one GPU, and the cache that is trusted to hold it.

An engine is native code, so it is only ever read from the user's own cache, after its manifest,
hash, owner and key were found to be what they must (``cache.py``). ``tensorrt.py`` and
``execution.py`` are the only files that know TensorRT: the one builds, the other runs.
"""
