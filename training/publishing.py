"""What others get to see of a run: the finished model, sample pictures and videos, the repository on the Hub."""

from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sdtalk.errors import InputError
from training.checkpoints import RunFolder, replaced
from training.data.dataset import PreparedDataset
from training.hub import HubUploader
from training.model_card import card_of_run
from training.recipe import TrainSettings
from training.reporting import Reporter
from training.samples import sample_clip, write_sample
from training.session import save_model


class Publisher:
    """Writes samples and models, and uploads them in the background; all of it on the main process."""

    def __init__(
        self,
        accelerator: Accelerator,
        run: RunFolder,
        settings: TrainSettings,
        prepared: PreparedDataset,
        average: AveragedModel,
        reporter: Reporter,
    ) -> None:
        """Find the repository, where there is to be one.

        Raises:
            InputError: The Hub refuses it.
        """
        self.accelerator, self.run, self.settings = accelerator, run, settings
        self.prepared, self.average, self.reporter = prepared, average, reporter
        self.main = accelerator.is_main_process
        self.clip = (
            sample_clip(prepared, settings.data.sample_split, settings.data.split) if self.main else None
        )
        self.uploader: HubUploader | None = None
        self.uploaded = 0  # the step
        if settings.hub.repo and self.main:
            self.uploader = HubUploader(settings.hub.repo, settings.hub.private, spool=run.path / ".hub")
            self.uploader.start()

    def samples(self, step: int, pictures: Tensor) -> None:
        """A contact sheet of the last batch, and a short video by the average of the weights."""
        self.reporter.pictures(step, pictures)
        if self.clip is None:
            return
        path = self.run.samples / f"step{step:06d}.mp4"
        frames, device = self.settings.log.sample_frames, self.accelerator.device
        try:
            write_sample(path, self.average.module, self.prepared, self.clip, frames, device)
        except InputError as error:  # a sample is not worth a run
            self.reporter.tell(f"no sample video: {error}")
            self.clip = None
            return
        self.reporter.video(step, path)

    def model(self, step: int) -> None:
        """Write the average of the weights as the run's model, and upload it where that is due.

        Raises:
            InputError: It cannot be written; the one before is still there.
        """
        if not self.main:
            return
        with replaced(self.run.model) as draft:
            processes = self.accelerator.num_processes
            config = self.average.module.config
            card = card_of_run(config, self.settings, self.prepared.index, step, processes)
            (draft / "README.md").write_text(card, encoding="utf-8")
            save_model(self.average.module, draft)
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
        self.reporter.tell(f"uploading to {self.settings.hub.repo} ...")
        for failure in self.uploader.close(UPLOAD_SECONDS):
            self.reporter.tell(f"warning: {failure}")


UPLOAD_SECONDS = 1800.0
"""So long the end of a run waits for a slow connection; the model stays in the run's folder in any case."""
