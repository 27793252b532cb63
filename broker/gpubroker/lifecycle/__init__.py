"""The drivers: they await things in the order policy says."""
