"""The models a page can offer: all that are found on this machine, loaded when first wanted, one at a time."""

from sdtalk.pipeline import SDTalkPipeline


class Shelf:
    """Hands out pipelines by the model's name; keeps the last one only, since a large one fills a laptop."""

    def __init__(self, models: dict[str, str], device: str = "auto") -> None:
        self.models, self.device = models, device
        self.name, self.pipeline = "", None  # type: str, SDTalkPipeline | None

    @classmethod
    def of(cls, pipeline: SDTalkPipeline) -> "Shelf":
        """A shelf with one model that is loaded already."""
        shelf = cls({pipeline.model.config.name: ""})
        shelf.name, shelf.pipeline = pipeline.model.config.name, pipeline
        return shelf

    @property
    def names(self) -> list[str]:
        """What there is to choose from; the first is the default."""
        return list(self.models)

    def take(self, name: str) -> SDTalkPipeline:
        """The pipeline of a model; not for two callers at once.

        Raises:
            KeyError: There is no such model here.
            InputError: The model cannot be loaded, or what it needs is missing; the last one stays.
        """
        source = self.models[name]
        if self.pipeline is None or name != self.name:
            self.pipeline, self.name = SDTalkPipeline.from_pretrained(source, self.device), name
        return self.pipeline
