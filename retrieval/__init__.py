"""Week 19: search by words and by meaning, and answers that cite what was found."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "bm25": ["BM25", "terms"],
        "corpus": ["chunk", "read_folder"],
        "encoder": ["Encoder"],
        "fusion": ["reciprocal_rank_fusion"],
        "index": ["VectorIndex", "unit_rows"],
        "ivf": ["IVF"],
        "losses": ["contrastive_loss", "distillation_loss"],
        "metrics": ["exact_match", "f1", "ndcg", "normalise_answer", "recall"],
        "pipeline": ["Pipeline"],
        "store": ["Hit", "Store"],
    },
)
