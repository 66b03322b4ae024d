"""Checks that import torch and vLLM, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

from slm_vllm.finding import Finding
from slm_vllm.monitoring.device import Device

_SECONDS = 300
_TORCH = """
import json, torch
found = {"version": torch.__version__, "archs": torch.cuda.get_arch_list(), "result": None}
if torch.cuda.is_available():
    ones = torch.ones(64, 64, device="cuda", dtype=torch.float16)
    # Summed in float32: float16 ends at 65,504.
    found["result"] = float((ones @ ones).float().sum().item())
print(json.dumps(found))
"""
_VLLM = "import vllm; print(vllm.__version__)"


def check_torch_itself(device: Device) -> Finding:
    """Architectures that torch was built for, and a small product on the GPU."""
    done = _python(_TORCH)
    if isinstance(done, str):
        return Finding("torch itself", "fail", done, "bash scripts/setup.sh")
    found = json.loads(done.stdout.splitlines()[-1])
    archs = " ".join(found["archs"]) or "none, a CPU build"
    text = f"{found['version']}, architectures: {archs}"
    if device.compute_capability is None:
        return Finding("torch itself", "ok", text)
    if found["result"] != 64.0**3:
        fix = "bash scripts/setup.sh installs the set that fits"
        return Finding("torch itself", "fail", f"{text}; it does not compute on the GPU", fix)
    return Finding("torch itself", "ok", f"{text}; computes on the GPU")


def check_vllm_import() -> Finding:
    """Whether vLLM can be imported at all."""
    done = _python(_VLLM)
    if isinstance(done, str):
        return Finding("vllm import", "fail", done, "bash scripts/setup.sh")
    return Finding("vllm import", "ok", f"{done.stdout.splitlines()[-1]} can be imported")


def _python(code: str) -> subprocess.CompletedProcess[str] | str:
    """The process that ran the code, or why it failed."""
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer in {_SECONDS} s"
    if done.returncode == 0 and done.stdout.strip():
        return done
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with {done.returncode} and no message"
