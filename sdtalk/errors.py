"""InputError: the one error a user's own input can cause; shown without a traceback."""


class InputError(ValueError):
    """An input that cannot be used: one line naming the input, the problem and the remedy.

    Attributes:
        subject: What cannot be used: a path, or the name of an option.
        problem: What is wrong with it, without a full stop.
        remedy: What helps, a sentence.

    Examples:
        >>> try:
        ...     pipeline("no-such.jpg", "speech.wav")
        ... except InputError as error:
        ...     print(error)
        no-such.jpg: there is no such file. Check the path of the picture.
    """

    def __init__(self, subject: str, problem: str, remedy: str) -> None:
        super().__init__(f"{subject}: {problem}. {remedy}")
        self.subject, self.problem, self.remedy = subject, problem, remedy

    def __reduce__(self) -> "tuple[type[InputError], tuple[str, str, str]]":
        """Pickle as its three parts, for other processes."""
        return type(self), (self.subject, self.problem, self.remedy)
