"""Simulations whose programs share a pool."""
