"""Giving machines up, and making sure of it."""
