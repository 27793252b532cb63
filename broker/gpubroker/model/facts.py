"""What a provider declares about itself."""

from __future__ import annotations

from dataclasses import dataclass

from gpubroker.model.requirements import TrustTier


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """Facts about one provider, declared by its plugin. All durations are seconds.

    Attributes:
        paid: machines cost money, or another person's trust. A paid provider must implement
            ``inventory`` and must put the mark inside its create request.
        trust: how far its hosts are trusted, where an offer does not say otherwise.
        runs_images: whether it starts container images.
        visibility_horizon: how long after a create a new machine may still be missing from a
            complete inventory. Until then "not listed" means "unknown".
        absence_readings: how many complete readings in a row must show a machine gone before
            its release counts as proven. 1 only where a reading is authoritative.
        absence_interval: least time between two of those readings.
        late_create_watch: how long a create whose answer was lost may still take effect, and so
            is watched for after it was given up.
        boot_timeout: how long a machine may go without any progress before it counts as broken.
        poll_interval: least time between two inventory calls while something is awaited.
        billing_quantum: machines are billed in multiples of this.
        release_margin: billing assumed to go on after a destroy was asked for; part of every
            reservation.
        stopping_bills: a stopped machine still costs money.
        mark_limit: most characters the field that carries the mark may hold.
        spot: it offers interruptible machines.
        ports: it can make TCP ports reachable.
        max_creates_at_once: creates it accepts in parallel.
        ssh: its machines are reached over SSH: the broker makes a key per lease, connects, and
            gives the plugin's ``run`` a channel.
        loopback: its machines are this host: their services are reached at 127.0.0.1.
        reattaches: its ``run`` goes on with a job that another process began (``io.begun``), and
            starts none then.
        identity_timeout: how long the log of a machine that runs may take to show its host keys.
        charges_after: how long after a release what it really cost is final.
    """

    paid: bool
    trust: TrustTier = TrustTier.VERIFIED
    runs_images: bool = True
    visibility_horizon: float = 60.0
    absence_readings: int = 2
    absence_interval: float = 5.0
    late_create_watch: float = 86_400.0
    boot_timeout: float = 600.0
    poll_interval: float = 2.0
    billing_quantum: float = 1.0
    release_margin: float = 120.0
    stopping_bills: bool = True
    mark_limit: int = 40
    spot: bool = False
    ports: bool = False
    max_creates_at_once: int = 4
    ssh: bool = False
    loopback: bool = False
    reattaches: bool = False
    identity_timeout: float = 120.0
    charges_after: float = 3600.0
