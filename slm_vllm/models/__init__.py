"""Finds a model's files: the demo model, a local folder, the Hugging Face cache or the hub."""

from slm_vllm.models.resolve import ResolvedModel, resolve_model

__all__ = ["ResolvedModel", "resolve_model"]
