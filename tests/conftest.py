"""Before anything else: Hypothesis looks for whoever holds a generator of random numbers.

It does not find objects that a model's load has settled (``app.engine.mlx.memory.settle``).
"""

import hypothesis  # noqa: F401
