"""How work reaches a machine, and how its files come back."""
