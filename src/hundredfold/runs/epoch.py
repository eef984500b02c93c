"""What training keeps of each epoch."""

from dataclasses import dataclass

from hundredfold.metrics.scores import refuse_earlier


@dataclass(frozen=True)
class Epoch:
    """What one epoch did: a line of history.jsonl."""

    epoch: int
    """From 1."""
    progress: float
    """Share of the schedule that is done at its end (0..1)."""
    seconds: float
    """Time spent training."""
    validation_seconds: float
    pictures: int
    """Pictures trained on; fewer than there are where the run ended within the epoch."""
    train_loss: float
    """Mean over the steps, with augmentation and label smoothing, in nats."""
    validation: dict[str, float]
    """What `metrics.measure` returns of logits as they are, not calibrated yet; empty without a
    validation split."""
    lr: list[float]
    """Learning rate of each step."""
    loss: list[float]
    """Training loss of each step."""

    def __post_init__(self) -> None:
        refuse_earlier(self.validation)

    @property
    def images_per_second(self) -> float:
        """Training pictures a second."""
        return self.pictures / self.seconds
