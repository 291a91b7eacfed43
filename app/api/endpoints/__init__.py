"""One thin controller for each endpoint."""
