"""Coding agents that are started on the service."""
