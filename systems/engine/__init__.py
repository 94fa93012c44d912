"""A serving engine for GPT-2: paged cache, continuous batching, prefix sharing, speculation."""
