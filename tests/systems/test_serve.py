"""The server over real sockets on 127.0.0.1, with a model of random weights."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from labkit import UsageError
from pretraining import GPT, Shape, build_tokenizer, export, generate
from systems import load, serve
from systems.api import Api
from systems.engine.engine import Engine
from systems.settings import EngineSettings, ServerSettings
from systems.worker import Worker

BLOCKS = 60
LIMITS = ServerSettings(max_open=6, max_body=4000, max_tokens=8, timeout=20)


class Served:
    """A server in threads of this process."""

    def __init__(self, folder: Path, limits: ServerSettings) -> None:
        import uvicorn

        from systems.models import open_folder

        self.model, self.tokenizer = open_folder(folder)
        self.engine = Engine(self.model, EngineSettings(block_size=4, blocks=BLOCKS, max_tokens=24))
        self.worker = Worker(self.engine)
        app = Api(self.worker, self.tokenizer, "toy", limits).app()
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        bound = serve.listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [bound]}, daemon=True
        )
        self.worker.start()
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(10)
        self.worker.close()

    def post(self, path: str = "completions", **body: Any) -> httpx.Response:
        return self.client.post(f"/v1/{path}", json=body)

    def idle(self) -> dict[str, Any]:
        """The health page once nothing is on its way; fails after 5 seconds."""
        end = time.perf_counter() + 5
        while time.perf_counter() < end:
            health = self.client.get("/health").json()
            if not health["open"] and not health["running"] and not health["waiting"]:
                return health
            time.sleep(0.02)
        raise AssertionError(f"requests were left over: {health}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = build_tokenizer("bpe", "pydoc", "the cat sat on the mat and the dog " * 3, 280)
    torch.manual_seed(0)
    model = GPT(Shape(len(tokenizer), 200, 16, 2, 2)).eval()
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5)
    place = tmp_path_factory.mktemp("model")
    export(model, tokenizer, place)
    return place


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    server = Served(folder, LIMITS)
    yield server
    server.close()


def expected(served: Served, prompt: str, count: int) -> str:
    row = torch.tensor([served.tokenizer.encode(prompt)])
    tokens = generate(served.model, row, count, temperature=0)[0].tolist()
    return str(served.tokenizer.decode(tokens, skip_special_tokens=True))


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_completions_are_the_samplers(served: Served) -> None:
    answer = served.post(
        prompt="the cat", max_tokens=9, temperature=0, ignore_eos=True, model="toy"
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == expected(served, "the cat", 9)
    assert body["choices"][0]["finish_reason"] == "length"
    prompt = len(served.tokenizer.encode("the cat"))
    assert body["usage"] == {
        "prompt_tokens": prompt, "completion_tokens": 9, "total_tokens": prompt + 9,
    }  # fmt: skip


def test_a_stream_is_the_same_text_in_pieces(served: Served) -> None:
    asked = {
        "prompt": "the dog", "max_tokens": 12, "temperature": 0, "stream": True, "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    with served.client.stream("POST", "/v1/completions", json=asked) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = events(response)
    assert found[-1]["usage"]["completion_tokens"] == 12
    assert "".join(e["choices"][0]["text"] for e in found[:-1]) == expected(served, "the dog", 12)
    assert [e["choices"][0]["finish_reason"] for e in found[:-1]][-1] == "length"
    assert len(found) > 4
    assert len({e["id"] for e in found}) == 1


def test_several_prompts_answers_and_tokens(served: Served) -> None:
    row = served.tokenizer.encode("the cat")
    asked = {"max_tokens": 5, "temperature": 0, "ignore_eos": True}
    texts = [
        c["text"] for c in served.post(prompt=["the cat", "a dog"], n=2, **asked).json()["choices"]
    ]
    assert texts == [expected(served, p, 5) for p in ("the cat", "the cat", "a dog", "a dog")]
    assert served.post(prompt=row, **asked).json()["choices"][0]["text"] == texts[0]
    assert served.post(prompt=[row], **asked).json()["choices"][0]["text"] == texts[0]
    drawn = [
        served.post(prompt="the", seed=s, max_tokens=8).json()["choices"][0]["text"]
        for s in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_chats_use_the_template(served: Served) -> None:
    turns = [{"role": "user", "content": "the cat"}]
    asked = {"messages": turns, "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    body = served.post("chat/completions", **asked).json()
    text = served.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert body["choices"][0]["message"] == {
        "role": "assistant", "content": expected(served, text, 6),
    }  # fmt: skip
    with served.client.stream("POST", "/v1/chat/completions", json=asked | {"stream": True}) as r:
        found = events(r)
    assert found[0]["object"] == "chat.completion.chunk"
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    deltas = [e["choices"][0]["delta"].get("content", "") for e in found]
    assert "".join(deltas) == expected(served, text, 6)


def test_stop_strings_and_stop_tokens(served: Served) -> None:
    whole = expected(served, "on the mat", 20)
    stop = whole[6:8]
    asked = {"prompt": "on the mat", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
    found = served.post(stop=stop, **asked).json()["choices"][0]
    assert found["text"] == whole[: whole.index(stop)]
    assert found["finish_reason"] == "stop"
    row = torch.tensor([served.tokenizer.encode("on the mat")])
    tokens = generate(served.model, row, 20, temperature=0)[0].tolist()
    found = served.post(stop_token_ids=[tokens[3]], **asked).json()["choices"][0]
    end = tokens.index(tokens[3])
    assert found["text"] == served.tokenizer.decode(tokens[:end], skip_special_tokens=True)
    served.idle()


def test_models_and_health(served: Served) -> None:
    assert [m["id"] for m in served.client.get("/v1/models").json()["data"]] == ["toy"]
    health = served.idle()
    assert health["status"] == "ok"
    assert health["free_blocks"] == health["blocks"] == BLOCKS
    assert health["memory_mb"] > 50


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("completions", {}, 400, "prompt: Field required"),
        ("completions", {"prompt": "a", "temperature": -0.5}, 400, "temperature: Input"),
        ("completions", {"prompt": "a", "top_p": 0}, 400, "top_p: Input should be greater than 0"),
        ("completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        ("completions", {"prompt": "a", "max_tokens": 500}, 400, "max_tokens=500, and"),
        ("completions", {"prompt": [[7] * 200]}, 400, "fills the model's context"),
        ("completions", {"prompt": [[900]]}, 400, "the model has tokens 0 to"),
        ("completions", {"prompt": ""}, 400, "the prompt is empty"),
        ("completions", {"prompt": []}, 400, "at least one is needed"),
        ("completions", {"prompt": "a", "logprobs": 3}, 400, "logprobs: Extra inputs"),
        ("completions", {"prompt": "a", "model": "gpt-9"}, 404, "model 'gpt-9' is not served here"),
        ("completions", {"prompt": "a", "n": 7}, 429, "max_open=6"),
        ("completions", {"prompt": "a" * 5000}, 413, "max_body=4000"),
        ("chat/completions", {"messages": []}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "user"}]}, 400, "messages.0.content"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(
    served: Served, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = served.post(path, **body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    assert served.client.post(f"/v1/{path}", content=b"{").status_code == 400


def test_a_client_that_hangs_up_frees_its_blocks(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-stream, and while it waits for a whole answer; the engine goes on when it is told."""
    before = served.idle()["aborted"]
    step, started, go_on = served.engine.step, threading.Event(), threading.Event()

    def held() -> Any:
        started.set()
        assert go_on.wait(20)
        return step()

    def hung_up() -> None:
        """Wait until the server has seen it, then let the engine take its next steps."""
        end = time.perf_counter() + 10
        while served.client.get("/health").json()["open"]:
            assert time.perf_counter() < end, "the server still waits for the client"
            time.sleep(0.01)
        go_on.set()

    asked = {"prompt": "the", "max_tokens": 190, "ignore_eos": True}
    monkeypatch.setattr(served.engine, "step", held)
    go_on.set()
    with served.client.stream("POST", "/v1/completions", json=asked | {"stream": True}) as response:
        next(response.iter_lines())
        go_on.clear()
    hung_up()
    assert served.idle()["aborted"] == before + 1
    started.clear()
    go_on.clear()
    host, port = served.url.removeprefix("http://").split(":")
    body = json.dumps(asked).encode()
    with socket.create_connection((host, int(port))) as raw:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        raw.sendall(head.encode() + body)
        assert started.wait(10)
    hung_up()
    health = served.idle()
    assert health["aborted"] == before + 2
    assert health["free_blocks"] == BLOCKS


def test_many_clients_at_once_lose_nothing(served: Served) -> None:
    options = load.Options(url=served.url, clients="6", seconds="1", max_tokens="6", prompt="3")
    import asyncio

    found = asyncio.run(load.measure(options))
    assert found["failed"] == 0, found["failures"]
    assert found["requests"] >= 12
    assert found["tokens_per_second"] > 0
    assert served.idle()["free_blocks"] == BLOCKS


def test_open_loop_load_counts_what_was_refused(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"url={served.url}", "rate=40", "requests=12", "max_tokens=4", "prompt=2"]
    assert load.main([*words, f"out={tmp_path / 'load.json'}"]) == 0
    written = json.loads((tmp_path / "load.json").read_text())
    assert written["requests"] == 12
    assert 0 < written["first_token_p50_ms"] <= written["first_token_p99_ms"]
    assert written["first_token_p99_ms"] <= written["whole_answer_p99_ms"]
    assert "tokens_per_second" in capsys.readouterr().out
    assert load.main([f"url={served.url}", "rate=1000", "requests=2", "max_tokens=9999"]) == 1
    assert "max_tokens=9999" in capsys.readouterr().out


def test_an_answer_that_takes_too_long_is_ended(folder: Path) -> None:
    server = Served(folder, ServerSettings(timeout=0.01))
    try:
        late = server.post(prompt="the", max_tokens=190, ignore_eos=True)
        assert late.status_code == 504
        assert "timeout=0.01 seconds" in late.json()["error"]["message"]
        assert server.idle()["free_blocks"] == BLOCKS
    finally:
        server.close()


def test_a_failure_of_the_engine_is_said_and_not_waited_for(folder: Path) -> None:
    server = Served(folder, LIMITS)
    try:
        server.engine.step = lambda: 1 / 0  # type: ignore[method-assign, return-value, assignment]
        answer = server.post(prompt="the")
        assert answer.status_code == 503
        assert server.client.get("/health").status_code == 503
        assert "ZeroDivisionError" in server.client.get("/health").json()["status"]
        assert server.post(prompt="the").status_code == 503
    finally:
        server.close()


# --- the command lines ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["folder=/nowhere"], "folder=/nowhere holds no model"),
        (["port=high"], "port=high: a whole number is needed"),
        (["port=70000"], "must be from 0 (any free one) to 65535"),
        (["blocks=0"], "blocks must be > 0, got 0"),
        (["speculate=17"], "speculate must be from 0 to 16"),
        (["timeout=0"], "timeout must be > 0"),
        (["engine=tgi"], "type engine=own or engine=vllm"),
        (["prot=1"], "did you mean port?"),
        (["host=203.0.113.7", "port=0"], "cannot listen on host=203.0.113.7"),
        ([], "week 7 has published no model here yet"),
    ],
)
def test_serve_names_what_it_cannot_take(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    port = [] if any(w.startswith(("port=", "host=")) for w in words) else ["port=0"]
    assert serve.main([*words, *port]) == 2
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with serve.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert serve.main([f"port={port}"]) == 2
    assert (
        f"port={port} is in use by another program; try port={port + 1}" in capsys.readouterr().err
    )


def test_vllm_is_started_or_asked_for(folder: Path, tmp_path: Path) -> None:
    options = serve.Options(port="8123", name="toy")
    with pytest.raises(UsageError, match=r"vLLM is not installed.*Type: make vllm"):
        serve.vllm_command(folder, options, tmp_path / "python")
    (tmp_path / "python").touch()
    command = serve.vllm_command(folder, options, tmp_path / "python")
    assert command[:3] == [str(tmp_path / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    pairs = dict(itertools.pairwise(command))
    assert pairs["--model"] == str(folder)
    assert pairs["--port"] == "8123"
    assert pairs["--host"] == "127.0.0.1"
    assert pairs["--served-model-name"] == "toy"


@pytest.mark.skipif(not serve.VLLM.is_file(), reason="vLLM is not installed: type make vllm")
def test_vllm_really_serves_a_folder(tmp_path: Path) -> None:
    """The command that a person types, until it answers; then a question and a small load."""
    tokenizer = build_tokenizer("bpe", "pydoc", "the cat sat on the mat and the dog " * 3, 280)
    torch.manual_seed(0)
    model = GPT(Shape(len(tokenizer), 128, 64, 2, 2)).eval()  # heads of 32: vLLM knows no smaller
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.25)
    export(model, tokenizer, tmp_path / "toy")
    with serve.listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    words = [f"folder={tmp_path / 'toy'}", f"port={port}", "engine=vllm"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "systems.serve", *words], stdout=log, stderr=log,
            cwd=serve.paths.ROOT, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.perf_counter() + 300
        while not answers(url):
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            assert time.perf_counter() < end, "vLLM did not answer within 300 seconds"
            time.sleep(0.5)
        tokens = [5, 9, 30]
        asked = {"model": "toy", "prompt": tokens, "max_tokens": 8, "temperature": 0}
        asked["return_token_ids"] = True
        said = httpx.post(f"{url}/v1/completions", json=asked, timeout=60).json()
        row = generate(model, torch.tensor([tokens]), 8, temperature=0)[0].tolist()
        assert said["choices"][0]["token_ids"] == row
        out = tmp_path / "load.json"
        assert load.main([f"url={url}", "rate=20", "requests=6", "max_tokens=4", f"out={out}"]) == 0
        measured = json.loads(out.read_text())
        assert (measured["requests"], measured["failed"]) == (6, 0)
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # vLLM has processes of its own
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def answers(url: str) -> bool:
    """Whether a server is there by now."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_load_without_a_server_says_what_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    with serve.listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    assert load.main([f"url=http://127.0.0.1:{port}"]) == 2
    error = capsys.readouterr().err
    assert "no server answers there" in error
    assert "python -m systems.serve" in error
    assert load.main(["rate=fast"]) == 2


def test_arrivals_are_a_poisson_process() -> None:
    times = load.arrivals(5.0, 20_000, 1)
    gaps = torch.tensor(times).diff(prepend=torch.zeros(1)).double()
    assert float(gaps.mean()) == pytest.approx(0.2, rel=0.03)
    assert float(gaps.std()) == pytest.approx(0.2, rel=0.03)
    assert float((gaps > 0.4).double().mean()) == pytest.approx(
        torch.tensor(-2.0).exp().item(), abs=0.01
    )
    assert load.arrivals(5.0, 3, 1) == times[:3] != load.arrivals(5.0, 3, 2)


def test_percentiles_by_hand() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [load.percentile(values, s) for s in (0.2, 0.21, 0.5, 0.95, 1.0)] == [1, 2, 3, 5, 5]
    outcomes = [
        load.Outcome(0.1, 0.5, [0.1, 0.3], 3),
        load.Outcome(0.2, 0.4, [], 5),
        load.Outcome(failure="HTTP 429"),
    ]
    found = load.summary(outcomes, 2.0)
    assert (found["requests"], found["failed"], found["failures"]) == (3, 1, {"HTTP 429": 1})
    assert found["tokens_per_second"] == 4
    assert found["first_token_p99_ms"] == pytest.approx(200)
    assert found["between_tokens_p50_ms"] == pytest.approx(100)
