#!/usr/bin/env python3
"""Writes the costs that LiteLLM computes for usages of models, as JSON lines, and its price list.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install litellm
    /tmp/venv/bin/python costs.py /tmp/costs.jsonl /tmp/prices.json
    L0_LITELLM_COSTS=/tmp/costs.jsonl L0_LITELLM_PRICES=/tmp/prices.json \\
        cargo test -p l0-pricing --test litellm -- --nocapture

`.ci/run full` does the same, with the version of LiteLLM whose differences are explained in the test.
"""

import json
import os
import random
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from litellm.types.utils import (
    CompletionTokensDetailsWrapper,
    ModelResponse,
    PromptTokensDetailsWrapper,
    Usage,
)

PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "xai": "x_ai",
    "mistral": "mistral_ai",
    "groq": "groq",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "together_ai": "together_ai",
    "fireworks_ai": "fireworks_ai",
}

# input, cached, written, output, reasoning
USAGES = [
    (1_000, 0, 0, 100, 0),
    (12_345, 10_000, 0, 678, 0),
    (12_345, 10_000, 1_000, 678, 0),
    (1_000, 0, 0, 2_000, 1_500),
    (200_000, 0, 0, 10, 0),
    (300_001, 100_000, 0, 1_000, 0),
]


def provider_of(entry):
    name = entry.get("litellm_provider") or ""
    if name in ("bedrock_converse", "bedrock_mantle"):
        return "bedrock"
    return name.split("-")[0]


def cost(provider, model, usage):
    read, cached, written, output, reasoning = usage
    response = ModelResponse(
        model=model,
        usage=Usage(
            prompt_tokens=read,
            completion_tokens=output,
            total_tokens=read + output,
            prompt_tokens_details=PromptTokensDetailsWrapper(
                cached_tokens=cached, cache_creation_tokens=written
            ),
            completion_tokens_details=CompletionTokensDetailsWrapper(reasoning_tokens=reasoning),
            cache_read_input_tokens=cached,
            cache_creation_input_tokens=written,
        ),
    )
    return litellm.completion_cost(
        completion_response=response, model=model, custom_llm_provider=provider
    )


def main():
    draw = random.Random(7)
    by_provider = {}
    for name, entry in sorted(litellm.model_cost.items()):
        if entry.get("mode") in ("chat", "responses") and provider_of(entry) in PROVIDERS:
            by_provider.setdefault(provider_of(entry), []).append(name)
    lines = []
    for provider, names in sorted(by_provider.items()):
        for name in draw.sample(names, min(8, len(names))):
            model = name.removeprefix(provider + "/")
            for usage in draw.sample(USAGES, 3):
                try:
                    told = cost(provider, model, usage)
                except Exception as error:
                    told = None
                    print(f"{provider} {model}: {type(error).__name__}", file=sys.stderr)
                lines.append(
                    {
                        "provider": PROVIDERS[provider],
                        "model": model,
                        "input": usage[0],
                        "cached": usage[1],
                        "written": usage[2],
                        "output": usage[3],
                        "reasoning": usage[4],
                        "cost": told,
                    }
                )
    with open(sys.argv[1], "w") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    with open(sys.argv[2], "w") as out:
        json.dump(litellm.model_cost, out)
    print(f"{len(lines)} costs")


main()
