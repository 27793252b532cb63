"""What is left behind, by whomever: found, adopted or released; and what limits say of it."""
