"""Tests mirror the rooms of app/; contract/ asks a live server, support/ holds what they share."""
