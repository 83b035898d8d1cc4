"""The W3C trace context of requests, always; spans and figures for an OTLP collector, where they are asked for."""
