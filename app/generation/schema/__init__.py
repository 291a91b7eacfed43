"""JSON schemas as clients send them: checked, closed to names they do not say, and taken apart for call formats."""
