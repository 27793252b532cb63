"""A machine in hand: jobs and services on it."""
