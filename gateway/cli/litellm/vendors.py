"""Where LiteLLM's `provider/model` leads: the provider type here, the address and the variable that it defaults to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# Parameters of LiteLLM to options of a provider entry; a dot leads into a map.
_AZURE = {
    "api_version": "api_version",
    "tenant_id": "entra.tenant_id",
    "client_id": "entra.client_id",
    "client_secret": "entra.client_secret",
}
_VERTEX = {"vertex_project": "project", "vertex_location": "location", "vertex_credentials": "credentials"}
_AWS = {
    "aws_region_name": "region",
    "aws_profile_name": "profile",
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "aws_bedrock_runtime_endpoint": "base_url",
}
_OPENAI = {"organization": "headers.openai-organization"}


@dataclass(frozen=True, slots=True)
class Vendor:
    """One prefix. `variables` are what LiteLLM reads when a parameter is not set; `note`: what is only nearly right.

    `needs` are options that an entry cannot do without; `tail` is what the address must end with; `root` says that
    the address is a resource's own, without a path.
    """

    type: str = "openai"
    base_url: str = ""
    env: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, object] = field(default_factory=dict)
    model: Callable[[str], str] = str
    note: str = ""
    tail: str = ""
    root: bool = False


def _azure_model(model: str) -> str:
    return re.sub(r"^(o_series|gpt5_series|responses)/", "", model)


def _fireworks_model(model: str) -> str:
    return model if model.startswith("accounts/") or model == "*" else f"accounts/fireworks/models/{model}"


def _bedrock_model(model: str) -> str:
    model = re.sub(r"^(converse|invoke|converse_like)/", "", model)
    return re.sub(r"^[a-z]{2}(-[a-z]+)+-\d/", "", model)


def _at(base_url: str, env: str, note: str = "") -> Vendor:
    return Vendor(base_url=base_url, env=env, note=note)


def _own(prefix: str) -> Vendor:
    return Vendor(variables={"base_url": f"{prefix}_API_BASE"})


_OLLAMA = Vendor(base_url="http://localhost:11434/v1", tail="/v1", note="through Ollama's OpenAI-compatible address")
_COHERE = _at("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "through its OpenAI-compatible address")

VENDORS: Mapping[str, Vendor] = {
    "openai": Vendor(env="OPENAI_API_KEY", options=_OPENAI, model=lambda model: model.removeprefix("responses/")),
    "azure": Vendor(
        "azure",
        env="AZURE_API_KEY",
        options=_AZURE,
        variables={"base_url": "AZURE_API_BASE"},
        model=_azure_model,
        root=True,
    ),
    "azure_ai": Vendor(
        "azure",
        env="AZURE_AI_API_KEY",
        variables={"base_url": "AZURE_AI_API_BASE"},
        model=_azure_model,
        root=True,
        note="through the resource's /openai/v1 path",
    ),
    "anthropic": Vendor("anthropic", env="ANTHROPIC_API_KEY"),
    "gemini": Vendor("google", env="GEMINI_API_KEY"),
    "vertex_ai": Vendor(
        "google",
        options=_VERTEX,
        variables={"project": "VERTEXAI_PROJECT"},
        needs={"location": "us-central1", "credentials": True},
    ),
    "bedrock": Vendor("bedrock", options=_AWS, variables={"region": "AWS_REGION_NAME"}, model=_bedrock_model),
    "together_ai": Vendor("together", env="TOGETHERAI_API_KEY"),
    "fireworks_ai": Vendor("fireworks", env="FIREWORKS_AI_API_KEY", model=_fireworks_model),
    "xai": Vendor("xai", env="XAI_API_KEY"),
    # What speaks OpenAI's dialect at an address of its own.
    "ai21": _at("https://api.ai21.com/studio/v1", "AI21_API_KEY"),
    "ai21_chat": _at("https://api.ai21.com/studio/v1", "AI21_API_KEY"),
    "baseten": _at("https://inference.baseten.co/v1", "BASETEN_API_KEY"),
    "cerebras": _at("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "codestral": _at("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "cohere": _COHERE,
    "cohere_chat": _COHERE,
    "dashscope": _at("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "deepinfra": _at("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "deepseek": _at("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "featherless_ai": _at("https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY"),
    "friendliai": _at("https://api.friendli.ai/serverless/v1", "FRIENDLI_TOKEN"),
    "github": _at("https://models.inference.ai.azure.com", "GITHUB_API_KEY"),
    "groq": _at("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "hyperbolic": _at("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    "lambda_ai": _at("https://api.lambda.ai/v1", "LAMBDA_API_KEY"),
    "meta_llama": _at("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
    "mistral": _at("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "moonshot": _at("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "nebius": _at("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    "novita": _at("https://api.novita.ai/v3/openai", "NOVITA_API_KEY"),
    "nscale": _at("https://inference.api.nscale.com/v1", "NSCALE_API_KEY"),
    "nvidia_nim": _at("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "openrouter": _at("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "perplexity": _at("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "sambanova": _at("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "vercel_ai_gateway": _at("https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY"),
    "volcengine": _at("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    "zai": _at("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    # Servers that somebody runs: the address is in the file.
    "custom_openai": _own("OPENAI_LIKE"),
    "docker_model_runner": _own("DOCKER_MODEL_RUNNER"),
    "hosted_vllm": _own("HOSTED_VLLM"),
    "litellm_proxy": _own("LITELLM_PROXY"),
    "llamafile": Vendor(base_url="http://127.0.0.1:8080/v1"),
    "lm_studio": _own("LM_STUDIO"),
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    "openai_like": _own("OPENAI_LIKE"),
    "vllm": _own("VLLM"),
    "xinference": _own("XINFERENCE"),
}
ALIASES = {"vertex_ai_beta": "vertex_ai", "bedrock_converse": "bedrock", "azure_openai": "azure"}

# What speaks a dialect of its own, or does no chat.
FOREIGN = frozenset(
    (
        *("aleph_alpha", "assemblyai", "auto_router", "azure_text", "clarifai", "deepgram", "elevenlabs"),
        *("github_copilot", "jina_ai", "nlp_cloud", "oobabooga", "palm", "petals", "predibase", "recraft", "replicate"),
        *("sagemaker", "sagemaker_chat", "text-completion-codestral", "text-completion-openai", "triton", "voyage"),
        *("watsonx", "watsonx_text"),
    )
)
# Names without a prefix, as LiteLLM knows them.
_BARE = (
    (re.compile(r"(ft:)?(gpt-|chatgpt-|o[134](-|$))"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "vertex_ai"),
    (re.compile(r"command"), "cohere"),
    (re.compile(r"([a-z]{2,6}\.)?(ai21|amazon|anthropic|cohere|deepseek|meta|mistral|openai|qwen)\."), "bedrock"),
    (re.compile(r"\*$"), "openai"),
)
# Parts of names of what does no chat, for entries that do not say their mode.
_NO_CHAT = re.compile(r"embed|whisper|dall-e|(^|[/-])tts([-/]|$)|rerank|moderation|gpt-image|imagen|stable-diffusion")
# Models that a prefix covers there and not here.
_NOT_HERE = {
    "vertex_ai": (
        re.compile(r".*(claude|meta/|llama|mistral|codestral|jamba|openapi/|qwen|deepseek)", re.IGNORECASE),
        "only Google's own models are served on Vertex AI",
    ),
    "azure_ai": (re.compile(r"claude", re.IGNORECASE), "Claude on Azure speaks Anthropic's dialect"),
    "bedrock": (re.compile(r"(agent|async_invoke|agentcore)/"), "only chat models are served on Bedrock"),
}


def split(model: str, custom: str) -> tuple[str, str]:
    """The prefix ("" where there is none that is known) and the model's own id."""
    if custom:
        return ALIASES.get(custom, custom), model.removeprefix(f"{custom}/")
    prefix, slash, rest = model.partition("/")
    name = ALIASES.get(prefix, prefix)
    if slash and (name in VENDORS or name in FOREIGN):
        return name, rest
    return next((vendor for pattern, vendor in _BARE if pattern.match(model)), ""), model


def does_no_chat(prefix: str, model: str, mode: str) -> str:
    """Why a deployment cannot be one here; empty when it can."""
    if mode and mode not in ("chat", "responses"):
        return f"mode {mode}: only chat is served"
    if not mode and _NO_CHAT.search(model.lower()):
        return "by its name it does no chat"
    if prefix in FOREIGN:
        return f"{prefix} speaks a dialect of its own"
    pattern, reason = _NOT_HERE.get(prefix, (None, ""))
    return reason if pattern and pattern.match(model) else ""


def region_in(model: str) -> str:
    """The region that LiteLLM lets stand in a Bedrock model's path."""
    found = re.match(r"(?:(?:converse|invoke|converse_like)/)?([a-z]{2}(?:-[a-z]+)+-\d)/", model)
    return found[1] if found else ""
