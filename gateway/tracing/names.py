"""Every name of OpenTelemetry's semantic conventions, version 1.41.1, that traces and figures bear, and our own."""

from __future__ import annotations

from collections.abc import Mapping

SCHEMA = "https://opentelemetry.io/schemas/1.41.1"

# Of the process.
SERVICE = "service.name"
SERVICE_VERSION = "service.version"
SERVICE_INSTANCE = "service.instance.id"

# Of HTTP, whichever side.
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
RESENT = "http.request.resend_count"
PATH = "url.path"
SCHEME = "url.scheme"
ERROR = "error.type"
SERVER = "server.address"
SERVER_PORT = "server.port"

# Of a call to a model.
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
MODEL = "gen_ai.request.model"
STREAM = "gen_ai.request.stream"
CHOICES = "gen_ai.request.choice.count"
OUTPUT_TYPE = "gen_ai.output.type"
ANSWERED_BY = "gen_ai.response.model"
ANSWER_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITTEN_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"

# What was said; only with `content: true`.
INPUT = "gen_ai.input.messages"
OUTPUT = "gen_ai.output.messages"
TOOLS = "gen_ai.tool.definitions"

# Parameters of a request, by their name there.
PARAMETERS: Mapping[str, str] = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
# Those that the conventions want as whole numbers.
WHOLE = frozenset(("max_tokens", "max_completion_tokens", "seed"))

# Figures: histograms, with the bounds that the conventions advise.
OPERATION_DURATION = "gen_ai.client.operation.duration"
TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
TOKEN_USAGE = "gen_ai.client.token.usage"
REQUEST_DURATION = "http.server.request.duration"
SECONDS = tuple(round(0.01 * 2**power, 2) for power in range(14))
TOKENS = tuple(4**power for power in range(14))
HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# Values.
CHAT = "chat"
INPUT_TYPE, OUTPUT_TYPE_OF_TOKENS = "input", "output"
OTHER = "_OTHER"
METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
# Providers that the conventions know under another name than gateway.yaml; every other has its own.
PROVIDERS: Mapping[str, str] = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google": "gcp.gen_ai",
    "xai": "x_ai",
}
# Where the address tells which of a provider's services it is.
HOSTS: Mapping[str, str] = {
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
}

# What the conventions have no name for.
REQUEST_ID = "sluiceway.request.id"
KEY = "sluiceway.key"
ASKED_MODEL = "sluiceway.model"
DEPLOYMENT = "sluiceway.deployment"
ATTEMPTS = "sluiceway.attempts"
CODE = "sluiceway.code"
CHOICE = "sluiceway.choice"
UPSTREAM_ID = "sluiceway.upstream.request_id"
USAGE_SOURCE = "sluiceway.usage.source"


def provider_name(kind: str, host: str) -> str:
    """What the conventions call a provider of this kind at this host."""
    for end, name in HOSTS.items():
        if host == end or host.endswith((f".{end}", f"-{end}")):
            return name
    return PROVIDERS.get(kind, kind)
