"""From a request on the wire to a job."""
