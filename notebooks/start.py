# %% [markdown]
# # The hands-on AI lab, in a notebook
#
# This notebook runs on Colab, on Kaggle, or on your own machine. It gets the lab, trains a model
# that draws digits, shows what it has drawn and the record of the run, and grades one exercise.
# A GPU makes it faster (on Colab: *Runtime*, *Change runtime type*); it is not needed.

# %%
REPOSITORY = "@repository@"
WEEK = "diffusion"  # any week of the README's table
SIZE = "tiny"  # minutes, on real data; "smoke" takes seconds and shows only that it runs
EXERCISE = ("neural_networks", "losses.cross_entropy")

# %% [markdown]
# ## Get the lab and install it
#
# On your own machine, in a clone where `make setup` was run, these cells have nothing to do. On
# Colab the installation takes some minutes: the lab has tested versions of PyTorch and the rest.

# %%
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from IPython.display import Image, Markdown, display


def clone():
    """The lab's folder: where this notebook is, or a new clone."""
    here = Path.cwd()
    for folder in (here, *here.parents, here / "lab"):
        if (folder / "labkit" / "cli.py").is_file():
            return folder
    if "/OWNER/" in REPOSITORY:
        raise RuntimeError(
            "write the address of the lab into REPOSITORY, in the first cell of code"
        )
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "lab"], check=True)
    return here / "lab"


def run(*words, fine=(0,)):
    """`python words...` in the lab's folder; its output appears here as it comes."""
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    options = {"encoding": "utf-8", "errors": "replace"}
    with subprocess.Popen([sys.executable, *words], cwd=LAB, **pipe, **options) as process:
        for line in process.stdout:
            print(line, end="")
    if process.returncode not in fine:
        raise RuntimeError(f"python {' '.join(words)} ended with exit code {process.returncode}")


LAB = clone()
HOME = Path(os.environ.get("LAB_HOME", LAB))  # where runs/ and results/ are
LAB

# %%
if importlib.util.find_spec("hydra") is None or importlib.util.find_spec("trl") is None:
    run("-m", "pip", "install", "--quiet", "-c", "constraints.txt", "-e", ".")
run("-m", "labkit.cli", "doctor", fine=(0, 1))

# %% [markdown]
# ## Train
#
# The same command that you would type into a terminal. After a few steps it tells how long it will
# take here. Add any setting, such as `"seed=1"`; `run("-m", f"{WEEK}.train", "--help")` lists them.

# %%
run("-m", f"{WEEK}.train", f"+size={SIZE}")

# %% [markdown]
# ## What came out
#
# Every finished run leaves a small record in `results/`, and pictures in its own folder below
# `runs/`. The tables of the lab are made from such records, and the bands are what a run should
# reach.

# %%
newest = max((HOME / "results" / WEEK).glob("*.json"), key=lambda file: file.stat().st_mtime)
record = json.loads(newest.read_text(encoding="utf-8"))
rows = [f"| {name} | {value:.4g} |" for name, value in record["metrics"].items()]
display(Markdown("\n".join(["| metric | value |", "| --- | --- |", *rows])))
for band in record["bands"]:
    print(f"{band['text']}: {'met' if band['met'] else 'not met'}")
print(f"{record['train_seconds']:.0f} s of training on {record['machine']['name']}")

# %%
samples = HOME / "runs" / WEEK / SIZE / newest.stem.removeprefix(f"{SIZE}-") / "samples"
for picture in sorted(samples.glob("*.png"))[:4]:
    print(picture.name)
    display(Image(filename=str(picture)))

# %% [markdown]
# ## An exercise
#
# `start` copies a week into `workspace/` with the functions to write left blank; files of yours
# that are there already stay. `check` grades: as long as the function is blank, it fails. Open the
# file that `start` names (on Colab: the folder at the left), write the function, and run the cell
# with `check` again. The docstring says everything that is graded; `hint` helps.

# %%
run("-m", "labkit.cli", "exercise", "start", EXERCISE[0], fine=(0, 2))

# %%
run("-m", "labkit.cli", "exercise", "check", *EXERCISE, fine=(0, 1))

# %%
run("-m", "labkit.cli", "exercise", "hint", *EXERCISE)

# %% [markdown]
# ## Further
#
# The README in each week's folder is its lab sheet: the papers, the idea with its equations, the
# exercises, and what usually goes wrong. `run("-m", "labkit.cli", "list")` shows the weeks, and
# `run("-m", "labkit.cli", "plan", WEEK)` what the full size of one would take here.
