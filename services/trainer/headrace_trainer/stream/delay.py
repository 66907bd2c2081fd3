"""Delayed feedback: a click that comes after the attribution window corrects a sample that was learned as a negative.

The window is waited for, then what comes late is learned as a positive of its own, as in elapsed-time sampling (Yang
et al., "Capturing Delayed Feedback in Conversion Rate Prediction via Elapsed-Time Sampling", AAAI 2021). Of
impressions with click probability p, of which the share d of the clicks comes late, the stream brings (1-d)·p early
positives, 1-(1-d)·p negatives and d·p late positives. The log loss of the truth, p·log f + (1-p)·log(1-f), is met in
expectation when positives count 1 and negatives

    w(x) = (1-p) / (1-(1-d)·p) = (1-p) / (1-p + d·p),

the probability that a negative is a real one (ES-DFM's p_rn; its further factor 1+p_dp only undoes the normalisation
of the observed density, which a sum over the stream does not have). As in the fake-negative weighted loss (Ktena et
al., "Addressing delayed feedback for continuous training with neural networks in CTR prediction", RecSys 2019) the
model's own score stands for p, without a gradient. Cancelled clicks are the mirror image, with a constant: of early
positives the share c is taken back later and learned as a negative, so a positive counts 1-c. Shares are running
estimates over the stream.
"""

from typing import Any, Final

#: Samples after which what was seen counts half.
_HALF_LIFE: Final = 200_000
#: Positives that the first estimate, no delay and no cancellation, is worth.
_PRIOR: Final = 50.0


class DelayedFeedback:
    """Running shares of late and cancelled positives."""

    def __init__(self) -> None:
        """Nothing is late."""
        self.early = self.late = self.cancelled = 0.0

    @property
    def late_share(self) -> float:
        """d: of all positives, those that come after the window."""
        return self.late / (self.early + self.late + _PRIOR)

    @property
    def cancelled_share(self) -> float:
        """c: of the positives, those that are taken back."""
        return min(0.9, self.cancelled / (self.early + self.late + _PRIOR))

    def add(self, samples: int, early: int, late: int, cancelled: int) -> None:
        """Take what a batch brought.

        Args:
            samples: first versions.
            early: positives among them.
            late: corrections that made a positive.
            cancelled: corrections that made a negative.
        """
        kept = 0.5 ** (samples / _HALF_LIFE)
        self.early = self.early * kept + early
        self.late = self.late * kept + late
        self.cancelled = self.cancelled * kept + cancelled

    def as_json(self) -> dict[str, Any]:
        """Everything, to be restored; JSON keeps every bit of a float."""
        return {"early": self.early, "late": self.late, "cancelled": self.cancelled}

    def restore(self, told: dict[str, Any]) -> None:
        """Take over what `as_json` gave."""
        self.early, self.late, self.cancelled = told["early"], told["late"], told["cancelled"]
