"""The records that training keeps: of each epoch, and of the head of a pretrained model."""

from dataclasses import dataclass

from hundredfold.metrics.scores import refuse_earlier


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch: a line of history.jsonl."""

    epoch: int
    """Number of the epoch, from 1."""
    progress: float
    """Share of the schedule that is done at the end of the epoch (0..1)."""
    seconds: float
    """Time in seconds spent on training."""
    validation_seconds: float
    """Time in seconds spent on validation."""
    pictures: int
    """Number of pictures trained on; fewer than usual if the run ended within the epoch."""
    train_loss: float
    """Mean loss over the steps in nats, with augmentation and label smoothing."""
    validation: dict[str, float]
    """Metrics that `measure` returns for the uncalibrated logits; empty without a
    validation split."""
    lr: list[float]
    """Learning rate of each step."""
    loss: list[float]
    """Training loss of each step."""

    def __post_init__(self) -> None:
        refuse_earlier(self.validation)

    @property
    def images_per_second(self) -> float:
        """Training pictures per second."""
        return self.pictures / self.seconds


@dataclass(frozen=True)
class HeadRecord:
    """How the head of a pretrained model was fitted."""

    seconds: float
    """Time in seconds for the features and the head."""
    pictures: int
    """Number of pictures to which the head was fitted."""
    refitted: bool
    """Whether the validation pictures are among them: the head was fitted again after they had
    measured it and chosen the strength."""
    strength: float
    """Strength of the L2 penalty, as in `models.logistic`."""
    validation: dict[str, float]
    """Metrics of the held-out pictures, as `measure` returns them; empty if there are none."""
    weights_sha256: str = ""
    """SHA-256 of the pretrained weights, without those of the head."""
