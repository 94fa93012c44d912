"""The assistant as a web page, with the passages beside the answer (Gradio).

python -m retrieval.app                        about SQuAD's passages, on http://127.0.0.1:7860
python -m retrieval.app docs=notes port=8080   about the text, Markdown and PDF files in notes/

Passages come from anywhere, and an answer can quote them. So both are shown as text: neither markup
nor pictures in them are carried out, since loading a picture could tell its server what was asked.
"""

import html
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit import UsageError
from labkit.config.words import read_words
from retrieval.chat import assistant

if TYPE_CHECKING:
    from retrieval.assistant import Answer, Assistant

USAGE = """\
Ask questions about documents on a web page; each answer cites the passages beside it.

usage: python -m retrieval.app [docs=FOLDER] [port=7860] [key=value ...]

  docs=squad       a folder of .txt, .md and .pdf files, or squad, or pydoc_cloze
  port=7860        of the page, which only this machine can reach
  run=latest       the trained models: the run that finished last, or a run folder
  index=           a folder where the vectors are kept, so that the next start is quick
  url=             a server with OpenAI's chat API, whose model writes the answers
  model=default    the name of its model; a key is read from OPENAI_API_KEY
  context=2048     tokens that the model can take
  device=auto      auto, cpu, cuda, mps
"""
STYLE = "border-left:4px solid {colour};padding:.2em .8em;margin:.6em 0;white-space:pre-wrap"
Message = dict[str, Any]


@dataclass
class Options:
    """The settings of the command, as text; `read_words` checks their names."""

    docs: str = "squad"
    port: str = "7860"
    run: str = "latest"
    index: str = ""
    url: str = ""
    model: str = "default"
    context: str = "2048"
    device: str = "auto"


def free_port(text: str) -> int:
    """The port as a number. Raises UsageError when it is none, or another programme has it."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(f"port={text}: a whole number from 1 to 65535 is needed")
    port = int(text)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port={port} is in use or not allowed ({error}); try port={min(port + 1, 65535)}"
            ) from error
    return port


def passages_html(answer: "Answer") -> str:
    """The passages of an answer as HTML: those that it cites are coloured, and those that give a
    language model instructions are marked.
    """
    from retrieval.generate import addresses_model

    parts = []
    for number, hit in enumerate(answer.hits, start=1):
        cited = number in answer.citations
        style = STYLE.format(colour="#228833" if cited else "#bbbbbb")
        mark = "<b>This passage gives a model instructions.</b><br>" if addresses_model(
            hit.passage.text) else ""  # fmt: skip
        title = f"<b>[{number}] {html.escape(hit.passage.title)}</b>{' · cited' if cited else ''}"
        parts.append(f'<div style="{style}">{title}<br>{mark}{html.escape(hit.passage.text)}</div>')
    return "".join(parts)


def page(assistant: "Assistant") -> Any:
    """The page, a gradio.Blocks that has not been started."""
    import gradio as gr

    def reply(question: str, history: list[Message]) -> Iterator[tuple[str, list[Message], str]]:
        said = [*history, {"role": "user", "content": question}]
        try:
            for answer in assistant.stream(question):
                shown = {"role": "assistant", "content": answer.text}
                yield "", [*said, shown], passages_html(answer)
        except UsageError as error:
            yield question, [*said, {"role": "assistant", "content": f"({error})"}], ""

    with gr.Blocks(title="Retrieval", analytics_enabled=False) as blocks:
        gr.Markdown(f"## Questions about {len(assistant.store)} passages")
        with gr.Row():
            with gr.Column(scale=3):
                chatbot = gr.Chatbot(label="Answers", height=360, render_markdown=False)
                box = gr.Textbox(label="Question", placeholder="Type a question and press Enter")
                button = gr.Button("Ask", variant="primary")
            with gr.Column(scale=2):
                gr.Markdown("### Passages")
                passages = gr.HTML()
        parts = {"fn": reply, "inputs": [box, chatbot], "outputs": [box, chatbot, passages]}
        box.submit(**parts)
        button.click(**parts)
    return blocks


def main(words: list[str]) -> int:
    """Carry out the command until Ctrl-C; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        options = read_words(Options, words, "docs=FOLDER")
        port = free_port(options.port)
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the page sends nothing out
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise UsageError('gradio is not installed; type pip install -e ".[app]"') from error
        ready = assistant(
            options.docs, options.run, options.index, options.url, options.model, options.context,
            options.device,
        )  # fmt: skip
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"http://127.0.0.1:{port}    Ctrl-C ends it.", flush=True)
    page(ready).launch(server_name="127.0.0.1", server_port=port, share=False, quiet=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
