"""Which Hugging Face configs describe a network that ours can compute, by a closed list.

A field of a config is one of four: a size, which is used; one that must have a certain value; one
that no logit depends on; or unknown, and then it must be at its default. An unknown variant is
refused by name, and never loaded as another network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pretraining.model import EPS, Architecture, Shape

Check = Callable[[Any, Any], bool]
"""Whether a field's value, in this config, is the one that ours uses."""

NO_LOGIT_DEPENDS_ON = frozenset(
    "transformers_version architectures model_type _name_or_path dtype torch_dtype "
    "output_hidden_states output_attentions return_dict use_cache output_past initializer_range "
    "bos_token_id eos_token_id pad_token_id task_specific_params "
    "id2label label2id _num_labels problem_type".split()
)
"""Where a model comes from, what it returns beside logits, how it writes, and other heads."""


@dataclass(frozen=True)
class Family:
    """One of their architectures and its counterpart here."""

    ours: Architecture
    sizes: tuple[str, str, str, str, str]
    """Their names of vocabulary, context, width, layers and heads."""
    must: dict[str, Check]
    harmless: frozenset[str]
    """Fields without influence, in addition to NO_LOGIT_DEPENDS_ON."""


def _is(*values: Any) -> Check:
    return lambda value, config: value in values


FAMILIES = {
    "gpt2": Family(
        ours="gpt2",
        sizes=("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"),
        must={
            # All of them the tanh form; "gelu" is another function.
            "activation_function": _is(
                "gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_fast"
            ),
            "n_inner": lambda value, config: value in (None, 4 * config.n_embd),
            "layer_norm_epsilon": _is(EPS["gpt2"]),
            "scale_attn_weights": _is(True),
            "scale_attn_by_inverse_layer_idx": _is(False),
            "add_cross_attention": _is(False),
            "is_encoder_decoder": _is(False),
            "tie_word_embeddings": _is(True),
        },
        # Dropout in training, the order in which the same product is computed, heads for other
        # tasks, and what old files hold beside it.
        harmless=frozenset(
            "resid_pdrop embd_pdrop attn_pdrop reorder_and_upcast_attn summary_type "
            "summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout "
            "n_ctx n_special predict_special_tokens".split()
        ),
    ),
    "nanochat": Family(
        ours="modern",
        sizes=(
            "vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers",
            "num_attention_heads",
        ),
        must={
            "hidden_act": _is("relu2"),
            "intermediate_size": lambda value, config: value == 4 * config.hidden_size,
            "num_key_value_heads": lambda value, config: value == config.num_attention_heads,
            "rms_norm_eps": _is(EPS["modern"]),
            "rope_parameters": _is({"rope_type": "default", "rope_theta": 10_000.0}),
            "final_logit_softcapping": _is(None),
            "attention_bias": _is(False),
            "is_encoder_decoder": _is(False),
        },
        # A head tied to the embedding is loaded as two equal matrices.
        harmless=frozenset({"attention_dropout", "tie_word_embeddings"}),
    ),
}  # fmt: skip
"""By `model_type`."""


def shape_of(config: Any) -> tuple[Shape, Architecture]:
    """Shape and architecture of ours that a config of theirs describes.

    Raises ValueError for another architecture, and for a variant that ours does not support: it
    names the fields.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ValueError(f"neither a GPT-2 nor a NanoChat: {config.model_type}")
    fields, defaults = config.to_dict(), type(config)().to_dict()
    refused = []
    for name, value in fields.items():
        if name in family.must:
            right = family.must[name](value, config)
        elif name in family.sizes or name in family.harmless or name in NO_LOGIT_DEPENDS_ON:
            right = True
        else:
            right = name in defaults and value == defaults[name]
        if not right:
            refused.append(f"{name}={value!r}")
    if refused:
        raise ValueError(
            f"this {config.model_type} differs from ours in more than its sizes: "
            f"{', '.join(refused)}"
        )
    return Shape(*(int(fields[name]) for name in family.sizes)), family.ours


def refuse_other_weights(found: Iterable[str], used: Iterable[str]) -> None:
    """Raises ValueError unless a model's weights are those that ours takes, by their names."""
    extra, missing = set(found) - set(used), set(used) - set(found)
    for what, names in (("has weights that ours has not", extra), ("lacks weights", missing)):
        if names:
            some = ", ".join(sorted(names)[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"the model {what}: {some}{more}")
