"""Model cache of the demo: loads the pipeline of a model when it is first wanted, and keeps one at a time."""

from threading import Lock

from sdtalk.pipeline import SDTalkPipeline


class ModelCache:
    """Hands out pipelines by the model's name; keeps the last one only, since a large one fills a laptop."""

    def __init__(self, sources: dict[str, str], device: str = "auto") -> None:
        """Load nothing yet.

        Args:
            sources: Name to show -> source for `SDTalkPipeline.from_pretrained`; the first is the default.
            device: "auto", "cpu" or "cuda".
        """
        self.sources, self.device = sources, device
        self.name, self.pipeline = "", None  # type: str, SDTalkPipeline | None
        self._lock = Lock()

    @classmethod
    def of_one(cls, pipeline: SDTalkPipeline) -> "ModelCache":
        """A cache with one model that is loaded already."""
        cache = cls({pipeline.model.config.name: ""})
        cache.name, cache.pipeline = pipeline.model.config.name, pipeline
        return cache

    @property
    def names(self) -> list[str]:
        """What there is to choose from; the first is the default."""
        return list(self.sources)

    def pipeline_for(self, name: str) -> SDTalkPipeline:
        """The pipeline of a model; a second caller waits while a first one loads.

        Raises:
            KeyError: There is no such model here.
            InputError: The model cannot be loaded, or what it needs is missing; the last one stays.
        """
        source = self.sources[name]
        with self._lock:
            if self.pipeline is None or name != self.name:
                self.pipeline, self.name = SDTalkPipeline.from_pretrained(source, self.device), name
            return self.pipeline
