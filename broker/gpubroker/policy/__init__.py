"""The policy engine: pure functions of values and `now`."""
