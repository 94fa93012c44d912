"""Dockerfile and devcontainer, checked by reading them, for which no docker is needed."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from pathlib import Path

from labkit import bootstrap

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    """(COPY, its words) and so on; lines that end with a backslash are joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(name, words.strip()) for name, _, words in pairs]


def ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def targets() -> set[str]:
    """What `make` can be asked for."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))


def copies() -> list[list[str]]:
    words = (words for name, words in instructions() if name == "COPY")
    return [[word for word in shlex.split(line) if not word.startswith("--")] for line in words]


def test_it_starts_from_a_python_that_the_lab_runs_on() -> None:
    base, image = (words for name, words in instructions() if name == "FROM")
    assert image == "base"
    found = re.fullmatch(r"python:(\d+)\.(\d+)-slim AS base", base)
    assert found
    bootstrap.check_version((int(found[1]), int(found[2]), 0))


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sources = [source for line in copies() for source in line[:-1]]
    assert "." in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        hidden = [mark for mark in ignored() if fnmatch.fnmatch(source, mark.removeprefix("**/"))]
        assert not hidden, f"{source} is left out by {hidden}"


def test_the_environment_is_made_before_the_code_comes() -> None:
    """A changed line of code must not install PyTorch again; and all that `make setup` reads, and
    all that the package's own metadata name, is there by then.
    """
    order = [f"{name} {words}" for name, words in instructions()]
    setup, code = order.index("RUN make setup"), order.index("COPY --chown=learner . .")
    assert setup < code
    early = {source for line in copies()[:-1] for source in line[:-1]}
    named = re.findall(r'^(?:readme|license-files) = \[?"([^"]+)"', _pyproject(), re.MULTILINE)
    assert len(named) == 2
    assert {"Makefile", "labkit/bootstrap.py", *bootstrap.MADE_FROM, *named} <= early


def _pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_it_runs_the_demo_as_a_user_without_rights() -> None:
    names = [name for name, _ in instructions()]
    assert dict(instructions())["CMD"] == '["make", "demo"]'
    assert dict(instructions())["USER"] not in ("root", "0")
    assert names.index("USER") < names.index("COPY")
    for name, words in instructions():
        if name == "COPY":
            assert "--chown=learner" in words
    asked = [re.findall(r"\bmake (?!&)([a-z-]+)", w) for n, w in instructions() if n == "RUN"]
    assert {target for found in asked for target in found} <= targets()
    assert "demo" in targets()


def test_nothing_secret_and_nothing_that_a_run_made_gets_into_it() -> None:
    for name, words in instructions():
        if name in ("ENV", "ARG"):
            assert not re.search(r"TOKEN|KEY|SECRET|PASSWORD", words, re.IGNORECASE)
    made = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    missing = {mark.strip("/").removeprefix("*") for mark in made} - {
        mark.removeprefix("**/").removeprefix("*") for mark in ignored()
    }
    assert not missing, f".dockerignore lacks {missing}"
    assert {".git", ".env"} <= set(ignored())


def test_the_devcontainer_is_built_from_the_same_file() -> None:
    file = ROOT / ".devcontainer" / "devcontainer.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    assert (file.parent / settings["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (file.parent / settings["build"]["context"]).resolve() == ROOT
    assert any(words.endswith(f" AS {settings['build']['target']}") for _, words in instructions())
    assert settings["remoteUser"] == dict(instructions())["USER"]
    word, target = settings["postCreateCommand"].split()
    assert word == "make"
    assert target in targets()
