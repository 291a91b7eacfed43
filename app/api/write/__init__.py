"""From events to an answer on the wire."""
