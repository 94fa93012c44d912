"""Week 18: agents with tools: ReAct, constrained decoding, Toolformer, and an investigator."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "atlas": ["draw_town"],
        "backends": ["OpenAIChat"],
        "calculator": ["CalculatorError", "calculate"],
        "citations": ["check_report", "supported"],
        "contamination": ["contaminated", "exposure"],
        "grammar": ["Automaton", "Constrained"],
        "questions": ["arithmetic", "chain", "several"],
        "react": ["Action", "Trace", "parse_action", "solve", "until_observation"],
        "score": ["exact_match", "f1", "normalise"],
        "tools": ["Observation", "Tool", "Toolbox"],
        "wiki": ["MediaWiki", "OfflineWiki"],
    },
)
