"""Crash-point enumeration: brokers killed at every step, reapers after them, vendors' own books."""
