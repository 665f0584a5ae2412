"""Languages of the page: what it says in English is looked up in the catalogue of the language a browser asks for.

Everything is written in English where it belongs, errors of the library, too. The catalogues `texts/*.json` have these
texts as keys, with `{}` where something is filled in, and `{#}` where a number is. Static texts are translated in the
browser, before Gradio draws them; what is said later is translated here, where it is shown. Programs and the command
line get English.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext

LANGUAGES = ("en", "zh", "es", "fr", "de", "ja")
"""ISO 639-1 codes; English needs no catalogue."""

GRADIO_NAMES = {"zh": "zh-CN"}
"""What Gradio's own texts call a language where it is not the code."""

HOLES = {"{}": "(.+?)", "{#}": r"([\d.]+)"}
SENTENCE_ENDS = re.compile(r"(?<=[.!?]) +(?=[A-Z0-9“])")
NUMBERED = re.compile(r"(#+ |\d+\. )(.+)")
"""Signs of a heading, and the numbers of steps, are not part of a text."""


@dataclass(frozen=True)
class Catalogue:
    """Texts of one language.

    Attributes:
        texts: By the English ones.
        patterns: Those in which something is filled in, as regular expressions, the most special ones first.
        joint: What stands between two sentences.
    """

    texts: dict[str, str]
    patterns: tuple[tuple[re.Pattern[str], str], ...]
    joint: str

    @classmethod
    def of(cls, texts: dict[str, str], joint: str = " ") -> "Catalogue":
        """A catalogue of texts."""
        filled = sorted((key for key in texts if any(hole in key for hole in HOLES)), key=_literals)
        return cls(texts, tuple((_pattern(key), texts[key]) for key in reversed(filled)), joint)

    def translated(self, text: str) -> str:
        """Translate a text of one or more sentences; what is not in the catalogue stays English."""
        found = self._found(text)
        if found is None and (numbered := NUMBERED.fullmatch(text)):
            return numbered[1] + self.translated(numbered[2])
        if found is not None:
            return found
        sentences = [self._found(sentence) or sentence for sentence in SENTENCE_ENDS.split(text)]
        return self.joint.join(sentences)

    def _found(self, text: str) -> str | None:
        if text in self.texts:
            return self.texts[text]
        sentences = SENTENCE_ENDS.split(text)
        if len(sentences) > 1 and all(known := [self._found(sentence) for sentence in sentences]):
            return self.joint.join(filter(None, known))
        for pattern, translation in self.patterns:
            if match := pattern.fullmatch(text):
                return re.sub(r"\{#?\}", "{}", translation).format(*map(self.translated, match.groups()))
        return None


def _literals(template: str) -> int:
    """How many letters of a template are its own: one that has more is more special."""
    return len(re.sub(r"\{#?\}", "", template)) + template.count("{#}")


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{#?\})", template)
    return re.compile("".join(HOLES.get(part) or re.escape(part) for part in parts), re.DOTALL)


@cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of one of LANGUAGES."""
    if language == "en":
        return Catalogue.of({})
    file = Path(__file__).with_name("texts") / f"{language}.json"
    return Catalogue.of(json.loads(file.read_text(encoding="utf-8")), "" if language in ("zh", "ja") else " ")


def asked_language(accept: str) -> str:
    """The one of LANGUAGES that a browser likes best.

    Args:
        accept: Its header Accept-Language, such as "fr-CH, fr;q=0.9, en;q=0.8".

    Returns:
        Its code; "en" where none of them is asked for.
    """
    wishes = []
    for wish in accept.split(","):
        tag, _, weight = wish.partition(";")
        number = re.fullmatch(r"\s*q\s*=\s*(\d(?:\.\d+)?)\s*", weight)
        wishes.append((float(number[1]) if number else 1.0, tag.strip().lower().split("-")[0]))
    best = sorted(wishes, key=lambda wish: -wish[0])  # equal ones stay in their order
    return next((code for weight, code in best if weight and code in LANGUAGES), "en")


def visitors_language() -> str:
    """The language of whoever's request is being answered here; "en" where there is none."""
    request = LocalContext.request.get(None)
    headers = getattr(request, "headers", None)
    return asked_language(headers.get("accept-language", "")) if headers else "en"


def translated(text: str) -> str:
    """Translate a text, for whoever's request is being answered here."""
    return catalogue(visitors_language()).translated(text)


def browser_texts() -> gr.I18n:
    """What browsers translate themselves, for `launch`: everything in which nothing is filled in."""
    whole = {
        GRADIO_NAMES.get(language, language): {
            key: text for key, text in catalogue(language).texts.items() if "{" not in key
        }
        for language in LANGUAGES[1:]
    }
    return gr.I18n(**whole)


TRANSLATE = """
<script>
// Puts the page's texts into the visitor's language before Gradio draws them: its own way knows labels and hints, and
// no choices, captions, numbered steps, and names of pages.
(() => {
  const config = window.gradio_config, catalogues = config?.i18n_translations ?? {};
  const code = (tag) => tag.toLowerCase().split("-")[0];
  const known = Object.fromEntries(Object.entries(catalogues).map(([tag, texts]) => [code(tag), texts]));
  const language = navigator.languages.map(code).find((one) => one === "en" || known[one]) ?? "en";
  const texts = known[language];
  document.documentElement.lang = language;
  window.toldInLanguage = (text) => text;
  if (!texts) return;
  const line = (text) => {
    const [, sign = "", words] = text.match(/^(#+ |\\d+\\. )?(.*)$/);
    return sign + (texts[words] ?? words);
  };
  const told = window.toldInLanguage = (text) => typeof text !== "string" ? text
    : texts[text.trim().replace(/\\s+/g, " ")] ?? text.split("\\n").map(line).join("\\n");
  for (const {type, props} of config.components) {
    for (const name of ["label", "info", "placeholder", "main_page_name"])
      if (props[name]) props[name] = told(props[name]);
    if (["markdown", "button", "downloadbutton"].includes(type)) props.value = told(props.value);
    if (props.choices) props.choices = props.choices.map(([name, value]) => [told(name), value]);
    if (props.sample_labels) props.sample_labels = props.sample_labels.map(told);
  }
  for (const page of config.pages ?? []) page[1] = told(page[1]);  // in place: Gradio holds these lists already
})();
</script>
"""
