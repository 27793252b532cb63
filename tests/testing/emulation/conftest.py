from __future__ import annotations

import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")
