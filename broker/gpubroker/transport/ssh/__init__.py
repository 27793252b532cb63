"""A channel over the system's OpenSSH client."""

from __future__ import annotations

from gpubroker.transport.ssh.lease_key import LeaseKey, missing_client
from gpubroker.transport.ssh.ssh_channel import SshChannel, open_channel

__all__ = ["LeaseKey", "SshChannel", "missing_client", "open_channel"]
