"""Models' processes, seen from the service: the only room that knows that there are any."""
