"""A wiki with one interface, online and offline: `search(query)` and `lookup(title)`.

    MediaWiki      Wikipedia, or any other wiki that runs MediaWiki, by its API
    OfflineWiki    passages on this machine: SQuAD's, the interpreter's own documentation, or a
                   dictionary of pages; ranked as BM25 does (week 19 has that in full)

Tests and training never ask a live wiki: its pages change, and the numbers with them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from agents.backends import fetch
from agents.recovery import Failed, delays, retry
from agents.tools import Tool
from labkit import UsageError, paths
from labkit.files import write_text

WIKIPEDIA = "https://en.wikipedia.org/w/api.php"
AGENT = "hands-on-ai-lab/0.1 (a course; one person's questions)"
"""Wikimedia asks every programme to name itself, and refuses those that do not."""
NOTHING = "nothing was found; try other words"


class Wiki(Protocol):
    """Where an agent reads."""

    def search(self, query: str, count: int = 5) -> list[str]:
        """Titles of the pages that fit best, the best one first."""
        ...

    def lookup(self, title: str) -> str:
        """The text of a page. Raises Failed when there is none."""
        ...


def terms(text: str) -> list[str]:
    """Words and numbers in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


class OfflineWiki:
    """Pages in memory, ranked by BM25 (Robertson and Zaragoza 2009, eq. 3.15)."""

    K1, B, TITLE = 1.2, 0.75, 3
    """Saturation, weight of a page's length, and how often its title counts."""

    def __init__(self, pages: Mapping[str, str]) -> None:
        """Pages by their titles, which must be unique. Raises UsageError when there is none."""
        if not pages:
            raise UsageError("a wiki needs at least one page")
        self.pages = dict(pages)
        self.titles = list(self.pages)
        self.postings: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self.lengths = []
        for i, (title, text) in enumerate(self.pages.items()):
            counted = Counter(terms(title) * self.TITLE + terms(text))
            self.lengths.append(sum(counted.values()))
            for term, count in counted.items():
                self.postings[term][i] = count
        self.mean = sum(self.lengths) / len(self.lengths)
        self.by_name = {title.casefold(): title for title in self.titles}

    def search(self, query: str, count: int = 5) -> list[str]:
        """Titles by BM25; those that share no word with the query are not in it."""
        score: defaultdict[int, float] = defaultdict(float)
        for term in terms(query):
            found = self.postings.get(term, {})
            rare = math.log(1 + (len(self.titles) - len(found) + 0.5) / (len(found) + 0.5))
            for page, often in found.items():
                long = 1 - self.B + self.B * self.lengths[page] / self.mean
                score[page] += rare * often * (self.K1 + 1) / (often + self.K1 * long)
        best = sorted(score, key=lambda page: (-score[page], page))[:count]
        return [self.titles[page] for page in best]

    def lookup(self, title: str) -> str:
        found = self.by_name.get(title.strip().casefold())
        if found is None:
            near = ", ".join(self.search(title, 3))
            raise Failed(f"there is no page {title!r}" + (f"; near: {near}" if near else ""), False)
        return self.pages[found]


class MediaWiki:
    """A wiki by MediaWiki's API, with a cache on disk, a time limit and polite repeats.

    www.mediawiki.org/wiki/API:Search and API:Extracts (the extension TextExtracts).
    """

    def __init__(
        self,
        api: str = WIKIPEDIA,
        cache: Path | None = None,
        timeout: float = 10.0,
        attempts: int = 3,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`cache` is a folder for answers, kept for ever: remove it to read pages anew.

        Raises UsageError for something that is not an address.
        """
        if not api.startswith(("http://", "https://")):
            raise UsageError(f"api={api} is no address; type api={WIKIPEDIA}")
        self.api, self.cache, self.timeout = api, cache, timeout
        self.attempts, self.sleep = attempts, sleep

    def search(self, query: str, count: int = 5) -> list[str]:
        """Raises Failed when the wiki does not answer."""
        if not query.strip():
            return []
        found = self.query(list="search", srsearch=query, srlimit=str(count), srprop="")
        return [str(page["title"]) for page in found.get("search", [])]

    def lookup(self, title: str) -> str:
        """The page's introduction as plain text."""
        found = self.query(
            prop="extracts", titles=title, exintro="1", explaintext="1", redirects="1"
        )
        for page in found.get("pages", []):
            if page.get("extract"):
                return str(page["extract"])
        raise Failed(f"there is no page {title!r}; search for it first", False)

    def query(self, **asked: str) -> dict[str, Any]:
        """The `query` part of the API's answer, from the cache when it is there."""
        settings = {"action": "query", "format": "json", "formatversion": "2", **asked}
        url = f"{self.api}?{urllib.parse.urlencode(sorted(settings.items()))}"
        kept = None
        if self.cache is not None:
            kept = self.cache / f"{hashlib.sha256(url.encode()).hexdigest()}.json"
            if kept.is_file():
                return read_answer(kept.read_bytes())

        def once() -> bytes:
            request = urllib.request.Request(url, headers={"User-Agent": AGENT})
            body = fetch(request, self.timeout)
            read_answer(body)
            return body

        body = retry(once, self.attempts, delays(self.attempts), self.sleep)
        if kept is not None:
            write_text(kept, body.decode())
        return read_answer(body)


def read_answer(body: bytes) -> dict[str, Any]:
    """Raises Failed when the wiki reports an error, or answered with something else."""
    try:
        answer = json.loads(body)
        if "error" in answer:
            problem = answer["error"]
            busy = problem.get("code") in ("maxlag", "ratelimited", "readonly")
            raise Failed(f"the wiki says: {problem.get('info', problem)}", busy)
        found = answer["query"]
        if not isinstance(found, dict):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Failed("this is no answer of MediaWiki's API; is api= right?", False) from error
    return found


def search_page(query: str, wiki: Wiki, others: bool) -> str:
    """The best page's text, and with `others` the titles of the next ones. Raises Failed."""
    titles = wiki.search(query)
    if not titles:
        raise Failed(NOTHING, False)
    also = f" (also: {', '.join(titles[1:])})" if others and titles[1:] else ""
    return f"{wiki.lookup(titles[0])}{also}"


def tools_of(wiki: Wiki, lookups: bool = True) -> list[Tool]:
    """What an agent may do with a wiki: search for words, and read a page by its title."""
    search = partial(search_page, wiki=wiki, others=lookups)
    found = [
        Tool("search", "find the page that fits best, and read it", search, {"query": "words"})
    ]
    if lookups:
        found.append(
            Tool("lookup", "read a page by its title", wiki.lookup, {"title": "its title"})
        )
    return found


def squad_pages(file: Path) -> dict[str, str]:
    """SQuAD's passages by title and number: `Nikola_Tesla 3` is `Nikola Tesla (3)`."""
    articles = json.loads(gzip.decompress(file.read_bytes()))["data"]
    return {
        f"{article['title'].replace('_', ' ')} ({i})": paragraph["context"]
        for article in articles
        for i, paragraph in enumerate(article["paragraphs"], 1)
    }


def documentation_pages(longest: int = 1200) -> dict[str, str]:
    """Passages of the interpreter's own documentation, which needs no download."""
    from pydoc_data.topics import topics

    pages: dict[str, str] = {}
    for name in sorted(topics):
        parts: list[str] = [""]
        for paragraph in topics[name].split("\n\n"):
            if len(parts[-1]) + len(paragraph) > longest and parts[-1]:
                parts.append("")
            parts[-1] += " ".join(paragraph.split()) + "\n"
        pages |= {f"{name} ({i})": part.strip() for i, part in enumerate(parts, 1) if part.strip()}
    return pages


def offline_wiki(name: str = "auto") -> OfflineWiki:
    """`squad`, `pydoc`, or `auto`: SQuAD's passages where they are, else the documentation.

    Raises UsageError for an unknown name, and for SQuAD where it is not.
    """
    files = [folder / "squad" / "dev-v1.1.json.gz" for folder in paths.data_folders()]
    found = next((file for file in files if file.is_file()), None)
    if name == "squad" and found is None:
        raise UsageError(
            f"wiki=squad: there is no {files[0]}; set LAB_DATA to a folder with it, "
            "or type wiki=pydoc"
        )
    if name not in ("auto", "squad", "pydoc"):
        raise UsageError(f"wiki={name} is not known; type wiki=squad, pydoc, or mediawiki")
    if found is None or name == "pydoc":
        return OfflineWiki(documentation_pages())
    try:
        return OfflineWiki(squad_pages(found))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{found} cannot be read ({error}); replace it, or type wiki=pydoc"
        ) from error


def questions_of(file: Path, count: int, seed: int) -> Sequence[tuple[str, str, list[str]]]:
    """Questions of SQuAD: the question, its passage's title, its accepted answers."""
    import numpy as np

    rows = [
        (q["question"], f"{a['title'].replace('_', ' ')} ({i})", [t["text"] for t in q["answers"]])
        for a in json.loads(gzip.decompress(file.read_bytes()))["data"]
        for i, p in enumerate(a["paragraphs"], 1)
        for q in p["qas"]
    ]
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:count]]
