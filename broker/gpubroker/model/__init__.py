"""Values: frozen, no I/O, no clock."""
