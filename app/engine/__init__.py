"""The door to the inference engine: ``base`` is what the rest of the service may know, ``mlx`` what is behind it."""
