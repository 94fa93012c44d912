# The lab on Python's own image. It trains the demo when it is started:
#
#   docker build --tag lab . && docker run --rm lab
#   docker run --rm --gpus all --volume lab-runs:/home/learner/lab/runs lab make demo
#
# `lab` and `python` of its environment are on the path: docker run --rm -it lab bash
FROM python:3.12-slim AS base

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 learner
USER learner

FROM base
RUN mkdir /home/learner/lab
WORKDIR /home/learner/lab

# What the environment is made from, first: the layer stays as long as these do not change.
COPY --chown=learner pyproject.toml constraints.txt README.md LICENSE Makefile ./
COPY --chown=learner labkit/bootstrap.py labkit/
RUN make setup

COPY --chown=learner . .
ENV PATH=/home/learner/lab/.venv/bin:$PATH
CMD ["make", "demo"]
