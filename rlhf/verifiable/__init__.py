"""GRPO on arithmetic, with a programme as the judge: `python -m rlhf.verifiable.train`."""
