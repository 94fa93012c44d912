"""Is the model robust, or is the attack weak? (Athalye, Carlini and Wagner 2018, section 3.1.)

A defence that only hides its gradients shows it: attacks that use gradients do worse than one that
does not, or than random noise, and an attack that may change everything still fails.
"""

from dataclasses import dataclass

from labkit import exercise


@dataclass(frozen=True)
class Measured:
    """Accuracies in percent, all on the same pictures."""

    one_step: float
    """Under FGSM."""
    many_steps: float
    """Under PGD with restarts."""
    black_box: float
    """Under the Square attack, which uses no gradients."""
    noise: float
    """Under random noise of size epsilon."""
    unbounded: float
    """Under PGD with epsilon 1: it may change any pixel to anything."""


SLACK = 1.0
"""Points of difference that chance explains."""


@exercise(minutes=15)
def signs_of_masking(measured: Measured) -> list[str]:
    """Which signs of masked gradients a model shows, in the order below; [] is good.

        "one step"   FGSM leaves a lower accuracy than PGD
        "black box"  the Square attack leaves a lower accuracy than PGD
        "noise"      random noise leaves a lower accuracy than PGD
        "unbounded"  PGD with epsilon 1 leaves an accuracy above 0

    Lower means by more than `SLACK` points, and above 0 means above `SLACK`.
    """
    white = measured.many_steps - SLACK
    found = {
        "one step": measured.one_step < white,
        "black box": measured.black_box < white,
        "noise": measured.noise < white,
        "unbounded": measured.unbounded > SLACK,
    }
    return [name for name, shown in found.items() if shown]
