"""Clients for services that run on a lease."""
