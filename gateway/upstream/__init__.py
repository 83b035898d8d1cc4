"""One call to a provider: pool, connection, framing, timers, and foreign failures turned into ours."""

from gateway.upstream.call import Call, Collector, Ready, Sink
from gateway.upstream.pool import Account, Endpoint
from gateway.upstream.sweep import Sweep

__all__ = ["Account", "Call", "Collector", "Endpoint", "Ready", "Sink", "Sweep"]
