"""``python -m gpubroker.cli``."""

from gpubroker.cli import main

main()
