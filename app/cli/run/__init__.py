"""``switchyard serve``: the address, the server with its signals and limits, the words at the start."""
