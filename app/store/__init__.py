"""Responses that are kept: bounded in bytes and in time, apart for each API key. Knows neither HTTP nor models."""
