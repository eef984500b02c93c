"""What ends a training early, and what it leaves behind: signals, a full disk, bad losses,
memory."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.stopping import Stopper

from hundredfold import Config, Dataset, Run, UserError, train
from hundredfold.support.errors import DivergedError
from hundredfold.support.signals import deferred_stop
from hundredfold.training.loop import StepRecord
from hundredfold.training.progress import Display


@pytest.mark.parametrize("torchrun", [False, True])
def test_after_an_error_a_sigterm_of_torchrun_is_ignored_so_that_the_error_is_shown(
    monkeypatch: pytest.MonkeyPatch, torchrun: bool
) -> None:
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(UserError), deferred_stop():
            raise UserError("another process has ended")
        assert signal.getsignal(signal.SIGTERM) == (signal.SIG_IGN if torchrun else before)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_ctrl_c_stops_immediately(tiny: Dataset, tiny_config: Config) -> None:
    class Impatient(Stopper):
        def step(self, step: StepRecord, epochs_done: int, progress: float) -> None:
            super().step(step, epochs_done, progress)
            if self.left == 0:
                signal.raise_signal(self.number)
                raise AssertionError("the second signal was not handled immediately")

    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job of a shell ignores it
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config, tiny, display=Impatient(3))
    (path,) = Path(tiny_config.out).iterdir()
    assert Run(path).newest_checkpoint() is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_leaves_a_checkpoint(tiny: Dataset, tiny_config: Config) -> None:
    with pytest.raises(SystemExit) as caught:
        train(tiny_config, tiny, display=Stopper(4, signal.SIGTERM))
    assert caught.value.code == 143
    (path,) = Path(tiny_config.out).iterdir()
    last = Run(path).newest_checkpoint()
    assert last
    assert last.steps_done == 4


def test_a_full_disk_does_not_stop_training(
    tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def full(*_: object) -> None:
        raise UserError("Cannot write x: No space left on device.")

    config = dataclasses.replace(tiny_config, checkpoint="1steps")
    monkeypatch.setattr(Run, "save_checkpoint", full)
    display = Display(quiet=True)
    assert train(config, tiny, display=display).finished
    assert display.noted == {"Cannot write x: No space left on device. Training continues."}


def test_a_loss_that_is_not_finite_names_its_step_and_saves_its_batch(
    tiny: Dataset, tiny_config: Config
) -> None:
    config = dataclasses.replace(tiny_config, lr=1e30, epochs=3)
    with pytest.raises(UserError, match=r"in epoch 1, step 2: lower --lr .* The batch of that"):
        train(config, tiny, quiet=True)
    (path,) = Path(tiny_config.out).iterdir()
    assert (path / "diverged.safetensors").stat().st_size > 16 * 3 * 32 * 32


def test_a_full_disk_does_not_hide_that_the_loss_is_not_finite(
    tiny: Dataset, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UserError("Cannot write x: No space left on device.")

    monkeypatch.setattr(Run, "save_batch", full)
    config = dataclasses.replace(tiny_config, lr=1e30, epochs=3)
    with pytest.raises(DivergedError, match=r"lower --lr .* that step is not saved: Cannot write"):
        train(config, tiny, quiet=True)


def test_ctrl_c_of_a_script_does_not_stop_a_training_in_its_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.number == 0
            signal.raise_signal(signal.SIGTERM)
            assert stop.number == signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_about_memory_says_which_settings_to_lower(tmp_path: Path) -> None:
    code = (
        "import resource, torch; from hundredfold.cli.main import main\n"
        "torch.set_num_threads(1)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)\n"
        "import sys; sys.exit(main(['train', '--data', 'sample', '--batch-size', '2000', '--sizes',"
        " '32', '--widths', '1500', '--model', 'whitenet', '--quiet']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "There is not enough memory: lower --batch-size (now 2000)" in done.stderr
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
