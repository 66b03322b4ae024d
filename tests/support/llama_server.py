"""llama.cpp's own HTTP server with the demo model in float32.

python -m support.llama_server MODEL.gguf PORT, by the Python that has the package xllamacpp.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

KEY = "secret"


def write_model(packed: Path, to: Path) -> None:
    """The demo model with the very weights that the engine computes with: float16 in float32.

    llama.cpp multiplies float16 weights by activations that it has rounded.

    Args:
        packed: The quantised GGUF that the demo model was made from.
        to: The file to write; 540 MB.
    """
    import numpy as np
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize

    reader = GGUFReader(packed)
    writer = GGUFWriter(str(to), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        part = field.types[-1] if kind == GGUFValueType.ARRAY else None
        value = 0 if field.name == "general.file_type" else field.contents()  # 0: all float32
        writer.add_key_value(field.name, value, kind, sub_type=part)
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        writer.add_tensor(tensor.name, np.ascontiguousarray(weights, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    import xllamacpp

    model, port = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = model, {"smol"}
    params.port = int(port)
    params.n_parallel, params.n_ctx = 4, 8192
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.api_keys = [KEY]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    # A line of its own also where a client is asking already and the server's log is at work.
    os.write(1, f"\nserves {server.listening_address}\n".encode())
    signal.pause()


if __name__ == "__main__":
    main()
