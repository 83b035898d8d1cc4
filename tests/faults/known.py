"""Cases that fail by a fault of the gateway that is not mended yet: each with the fault. It only shrinks."""

KNOWN: dict[str, str] = {}
