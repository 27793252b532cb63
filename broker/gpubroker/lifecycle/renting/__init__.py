"""From requirements to a machine in hand."""
