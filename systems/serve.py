"""Serve a model over HTTP, by this week's engine or by vLLM.

python -m systems.serve folder=lab port=8000
python -m systems.serve folder=lab port=8001 engine=vllm
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from labkit import UsageError, paths
from labkit.config.bounds import check
from labkit.config.fields import settings as fields_of
from labkit.config.words import read_words, real_number, whole_number
from systems.settings import EngineSettings, ServerSettings

USAGE = """\
Serve a model over HTTP, in OpenAI's protocol.

usage: python -m systems.serve [folder=lab] [port=8000] [key=value ...]

  folder=lab       what week 7 published; or a folder: a GPT-2 of Hugging Face, or a quantised one
  host=127.0.0.1   address to listen on; 0.0.0.0 lets other machines in
  port=8000        its port
  engine=own       own, or vllm: the real one, from the environment that `make vllm` makes
  name=            the model's name for clients; the folder's if left out
  blocks=1024      blocks of the cache, block_size=16 positions each
  max_tokens=512   tokens computed in one step
  max_sequences=64 requests computed at once; others wait
  speculate=0      tokens guessed ahead, 0 to 16; draft=FOLDER names a smaller model that guesses
  max_open=256     answers on their way at once; one more is refused (HTTP 429)
  max_body=1000000 bytes of a request (HTTP 413)
  timeout=300      seconds that an answer may take (HTTP 504)

Try it:  curl localhost:8000/v1/completions -d '{"prompt": " The", "max_tokens": 30}'
"""
VLLM = paths.ROOT / ".venv-vllm" / "bin" / "python"


@dataclass
class Options:
    """The settings of the command, as text."""

    folder: str = "lab"
    host: str = "127.0.0.1"
    port: str = "8000"
    engine: str = "own"
    name: str = ""
    blocks: str = "1024"
    block_size: str = "16"
    max_tokens: str = "512"
    max_sequences: str = "64"
    speculate: str = "0"
    draft: str = ""
    max_open: str = "256"
    max_body: str = "1000000"
    timeout: str = "300"


def filled(kind: type[EngineSettings] | type[ServerSettings], options: Options) -> dict[str, float]:
    """Those settings of a dataclass that the command has, checked against their bounds."""
    found: dict[str, float] = {}
    for field in fields_of(kind):
        if hasattr(options, field.name):
            text = getattr(options, field.name)
            if (kind, field.name) == (ServerSettings, "max_tokens"):
                continue  # the command's max_tokens is the engine's
            read = whole_number if isinstance(field.default, int) else real_number
            found[field.name] = read(field.name, text)
            check(field.name, found[field.name], field.bounds, field.default)
    return found


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises UsageError when that cannot be had."""
    if not 0 <= port < 65536:
        raise UsageError(f"port={port} must be from 0 (any free one) to 65535; try port=8000")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(1024)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port={port} is in use by another program; try port={port + 1}"
            ) from error
        raise UsageError(f"cannot listen on host={host} port={port}: {error.strerror}") from error
    return bound


def vllm_command(folder: Path, options: Options, python: Path = VLLM) -> list[str]:
    """The command that starts vLLM. Raises UsageError when its environment is not made."""
    if not python.is_file():
        raise UsageError(
            f"vLLM is not installed: there is no {python}. Type: make vllm\n"
            "It gets an environment of its own, since it needs its own versions of other packages."
        )
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", options.name or folder.name, "--dtype", "float32",
        "--enforce-eager", "--host", options.host, "--port", options.port,
        "--max-num-seqs", options.max_sequences,
    ]  # fmt: skip


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 ended by Ctrl-C, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        serve(read_words(Options, words, "port=8000"))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def serve(options: Options) -> None:
    """Serve until Ctrl-C. Raises UsageError before anything is loaded, where that is possible."""
    if options.engine not in ("own", "vllm"):
        raise UsageError(f"engine={options.engine} is unknown; type engine=own or engine=vllm")
    port = whole_number("port", options.port)
    engine_settings = EngineSettings(**filled(EngineSettings, options))  # type: ignore[arg-type]
    server_settings = ServerSettings(**filled(ServerSettings, options))  # type: ignore[arg-type]
    with listen(options.host, port) as bound:
        from systems.models import find

        folder = find(options.folder)
        name = options.name or folder.name
        if options.engine == "vllm":
            command = vllm_command(folder, options)
            bound.close()
            os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1")
            os.execv(command[0], command)  # vLLM takes this process's place, and its signals
        own(bound, folder, name, options, engine_settings, server_settings)


def own(
    bound: socket.socket, folder: Path, name: str, options: Options,
    engine_settings: EngineSettings, server_settings: ServerSettings,
) -> None:  # fmt: skip
    """Serve a folder by this week's engine, until Ctrl-C."""
    import uvicorn

    from systems.api import Api
    from systems.engine.engine import Engine
    from systems.models import find, open_folder
    from systems.worker import Worker

    model, tokenizer = open_folder(folder)
    draft = open_folder(find(options.draft))[0] if options.draft else None
    try:
        engine = Engine(model, engine_settings, draft)
    except ValueError as error:
        raise UsageError(str(error)) from error
    worker = Worker(engine)
    worker.start()
    app = Api(worker, tokenizer, name, server_settings).app()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=30)
    where = f"http://{options.host}:{bound.getsockname()[1]}"
    print(f"serving {name} at {where}/v1, health at {where}/health; Ctrl-C ends it", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[bound])
    finally:
        worker.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
