"""The command line: one function per command, rendering apart. Needs ``gpubroker[cli]``."""

from __future__ import annotations

import logging
import sys

_EXTRA = ("typer", "rich", "click", "shellingham")


def main() -> None:
    """Run the command line, and exit with its code."""
    try:
        from gpubroker.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        text = f"the command line needs {error.name}: pip install 'gpubroker[cli]'"
        sys.stderr.write(f"gpubroker: {text}\n")
        raise SystemExit(125) from None
    # The broker's log is for programs; here, what it says is shown as it happens.
    logging.getLogger("gpubroker").addHandler(logging.NullHandler())
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception:  # noqa: BLE001 - a fault of ours must not look like the command's own exit
        import traceback

        traceback.print_exc()
        raise SystemExit(125) from None
