"""Cases that no test drives, each with the reason. It only shrinks."""

NOT_DRIVEN: dict[str, str] = {}
