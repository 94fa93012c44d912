"""Learning from what people preferred: HH-RLHF's comparisons, and XSTest on both axes."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "comparisons": ["encode", "recent_turns"],
        "judged": ["on_xstest", "words_accuracy"],
    },
)
