"""Pools: machines that are kept warm, and shared by processes through the ledger."""
