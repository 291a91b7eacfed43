"""The service as launchd and systemd run it."""
