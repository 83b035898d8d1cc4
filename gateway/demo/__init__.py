"""The embedded upstream that speaks all eight providers' wire formats, with no key and no network."""

from gateway.demo.server import Demo, Recorded, start_demo

__all__ = ["Demo", "Recorded", "start_demo"]
