"""`python -m slm_vllm` is the command `slm-vllm`."""

from slm_vllm.cli.main import main

if __name__ == "__main__":
    main()
