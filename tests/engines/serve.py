"""llama.cpp's own HTTP server, from the xllamacpp wheel, with the small model that lies beside this file.

    python -m tests.engines.serve [--slots N] [--key KEY]

It prints its address once it can be asked, and serves until it is killed, for two minutes at most.
"""

import argparse
import signal
from pathlib import Path

import xllamacpp  # type: ignore[import-not-found, unused-ignore]

MODEL = Path(__file__).with_name("tiny.gguf")
CONTEXT = 4096
"""Tokens for each slot."""
LIFETIME = 120
"""Seconds after which it ends by itself, and with it an answer without end that a test has forgotten."""


def options(slots: int, key: str | None) -> xllamacpp.CommonParams:
    """One thread, any free port of loopback, nothing from the network."""
    given = xllamacpp.CommonParams()
    given.model.path = str(MODEL)
    given.model_alias = {"tiny"}
    given.hostnames = ["127.0.0.1"]
    given.port = 0
    given.n_parallel = slots
    given.n_ctx = CONTEXT * slots
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = 1
    given.use_jinja = True  # the model's own chat template, which knows tools
    given.ctx_shift = True  # with ignore_eos an answer never ends, whatever the size of the context
    given.offline = True
    given.ui = given.warmup = False
    given.cache_ram_mib = 0  # no prompts kept: each request computes the same
    if key:
        given.api_keys = [key]
    return given


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=1, help="requests that are answered at a time")
    parser.add_argument("--key", help="refuse requests without this API key")
    args = parser.parse_args()
    server = xllamacpp.Server(options(args.slots, args.key))
    print(server.listening_address, flush=True)  # noqa: T201
    signal.alarm(LIFETIME)
    signal.pause()


if __name__ == "__main__":
    main()
