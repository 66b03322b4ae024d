"""slm-vllm: fast, resumable evaluation of small language models on question answering."""

__version__ = "0.2.0"
