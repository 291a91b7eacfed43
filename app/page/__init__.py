"""The page at ``/`` and the API reference at ``/docs``: static files, served as they lie here, with no build step."""
