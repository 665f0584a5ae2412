"""Run outputs: the finished model, sample pictures and videos, and their upload to the Hub."""

from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sdtalk.errors import InputError
from training.checkpoints import RunFolder, atomic_folder
from training.data.dataset import PreparedDataset
from training.hub_uploader import HubUploader
from training.metrics_logger import MetricsLogger
from training.model_card import card_of_run
from training.run_state import save_model
from training.sample_videos import choose_sample_clip, write_sample_video
from training.train_settings import TrainSettings


class RunOutputs:
    """Writes samples and models, and uploads them in the background; all of it on the main process."""

    def __init__(
        self,
        accelerator: Accelerator,
        run: RunFolder,
        settings: TrainSettings,
        prepared: PreparedDataset,
        ema: AveragedModel,
        logger: MetricsLogger,
    ) -> None:
        """Find the repository, where there is to be one.

        Raises:
            InputError: The Hub refuses it.
        """
        self.accelerator, self.run, self.settings = accelerator, run, settings
        self.prepared, self.ema, self.logger = prepared, ema, logger
        self.main = accelerator.is_main_process
        self.clip = (
            choose_sample_clip(prepared, settings.data.sample_split, settings.data.split)
            if self.main
            else None
        )
        self.uploader: HubUploader | None = None
        self.uploaded = 0  # the step
        if settings.hub.repo and self.main:
            self.uploader = HubUploader(settings.hub.repo, settings.hub.private, spool=run.path / ".hub")
            self.uploader.start()

    def write_samples(self, step: int, pictures: Tensor) -> None:
        """A contact sheet of the last batch, and a short video by the average of the weights."""
        self.logger.log_images(step, pictures)
        if self.clip is None:
            return
        path = self.run.samples / f"step{step:06d}.mp4"
        frames, device = self.settings.log.sample_frames, self.accelerator.device
        try:
            write_sample_video(path, self.ema.module, self.prepared, self.clip, frames, device)
        except InputError as error:  # a sample is not worth a run
            self.logger.print(f"no sample video: {error}")
            self.clip = None
            return
        self.logger.log_video(step, path)

    def write_model(self, step: int) -> None:
        """Write the average of the weights as the run's model, and upload it where that is due.

        Raises:
            InputError: It cannot be written; the one before is still there.
        """
        if not self.main:
            return
        with atomic_folder(self.run.model) as draft:
            processes = self.accelerator.num_processes
            config = self.ema.module.config
            card = card_of_run(config, self.settings, self.prepared.index, step, processes)
            (draft / "README.md").write_text(card, encoding="utf-8")
            save_model(self.ema.module, draft)
        if step - self.uploaded >= self.settings.hub.every:
            self._upload(step)

    def _upload(self, step: int) -> None:
        if self.uploader is None:
            return
        self.uploaded = step
        self.uploader.upload(self.run.model, f"Step {step} of {self.settings.steps}")
        if self.settings.hub.state:
            self.uploader.upload(self.run.checkpoint(step), f"State of step {step}", path_in_repo="training")

    def close(self, step: int) -> None:
        """Upload the last model, and wait for the uploads."""
        if self.uploader is None:
            return
        if step != self.uploaded:
            self._upload(step)
        self.logger.print(f"uploading to {self.settings.hub.repo} ...")
        for failure in self.uploader.close(UPLOAD_SECONDS):
            self.logger.print(f"warning: {failure}")


UPLOAD_SECONDS = 1800.0
"""So long the end of a run waits for a slow connection; the model stays in the run's folder in any case."""
