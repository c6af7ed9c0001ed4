"""A note and its questions as tokens.

A prompt is segments that are tokenised apart and then joined:

    head          note        question            answer
    instruction   the text    suffix of a task    one verbalised option

Because the note has its own segment, its character offsets are exact (never searched for), over-long notes are cut
without touching the question, and all tasks of a note share the tokens of head and note: the shared prefix of
attribution, training and scoring (docs/method.md, section 3.2). A mark in the question stands for the answer; it is
tokenised apart, too, so that it is the same tokens as in a masked note.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import takewhile
from typing import Any, TypeVar

import numpy as np

from raypipe.errors import Code, RowError
from raypipe.guard.limits import within_limit
from raypipe.models.pieces import PieceEncoder, Tokenizer
from raypipe.models.sentinels import MARK, choose_sentinels, mark_ids
from raypipe.notes.tasks import Task
from raypipe.settings.config import Prompt
from raypipe.settings.sections.model import Chat
from raypipe.words import I32, tokens_of_words, word_spans

Result = TypeVar("Result")
# Questions of a note that share a row: the attention mask of a row grows with the square of its length.
QUESTIONS_PER_ROW = 32
MASK = "{mask}"  # in the template of the question: the mark in the place of the answer
TEMPLATE_DATE = date(2024, 7, 26)  # what Llama 3's template itself writes where it has no clock
_DATE_FORMAT = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1""")
_USER = "\u241fuser-content\u241f"  # stands for the user's content while the chat template is rendered


@dataclass(frozen=True)
class Question:
    """One task asked of a note."""

    task_id: str
    suffix_ids: tuple[int, ...]  # what follows the note, up to where the answer begins
    option_ids: tuple[tuple[int, ...], ...]  # [C] tokens of each verbalised option
    item: tuple[int, int] | None = None  # suffix_ids[a:b] is the task's own question; None: all of it
    unmarked_ids: tuple[int, ...] = ()  # suffix_ids without a mark in the place of the answer


@dataclass(frozen=True)
class EncodedNote:
    """Tokens of a note, and of the questions asked of it."""

    note_id: str
    prefix_ids: tuple[int, ...]  # head + note
    note_start: int  # prefix_ids[note_start:] are the note's
    offsets_N2: I32  # characters of the text under each note token
    n_cut_tokens: int  # note tokens that did not fit
    questions: tuple[Question, ...]
    # note tokens of each word that has any: first, one past last
    tokens_W2: I32 = field(default_factory=lambda: np.empty((0, 2), np.int32))


def question_groups(questions: Sequence[Question]) -> Iterator[tuple[int, Sequence[Question]]]:
    """The questions that share a row, group by group, each with the index of its first question."""
    for first in range(0, len(questions), QUESTIONS_PER_ROW):
        yield first, questions[first : first + QUESTIONS_PER_ROW]


def _parts(text: str) -> Iterator[tuple[str, int]]:
    """The marks in a text and what lies between them, in order, each with its character offset."""
    start = 0
    for mark in MARK.finditer(text):
        yield text[start : mark.start()], start
        yield mark[0], mark.start()
        start = mark.end()
    yield text[start:], start


def in_place(
    encoded: Sequence[EncodedNote | Code], function: Callable[[list[EncodedNote]], Sequence[Result]]
) -> list[Result | Code]:
    """What `function` makes of the notes that could be encoded, among the codes of the others, in order."""
    results = iter(function([note for note in encoded if isinstance(note, EncodedNote)]))
    return [next(results) if isinstance(note, EncodedNote) else note for note in encoded]


@dataclass(frozen=True)
class Frame:
    """The fixed text around a user turn and before the model's answer."""

    before: str
    after: str
    is_chat: bool


def frame(tokenizer: Tokenizer, instruction: str, chat: Chat) -> Frame:
    """Text before and after the user's content, from the chat template if there is one.

    The template is rendered once around a placeholder and split there, so a note that imitates template syntax stays
    data. Templates without a system role get the instruction at the start of the user turn.
    """
    if chat == "never" or not getattr(tokenizer, "chat_template", None):
        return Frame(instruction + "\n" if instruction else "", "", is_chat=False)
    # an empty system turn keeps a template from writing one of its own
    system = [{"role": "system", "content": instruction}] if instruction or chat == "bare" else []
    for messages in (
        [*system, {"role": "user", "content": _USER}],
        [{"role": "user", "content": f"{instruction}\n{_USER}" if instruction else _USER}],
    ):
        rendered = _rendered(tokenizer, messages)
        if rendered is not None and rendered.count(_USER) == 1 and (not instruction or instruction in rendered):
            before, after = rendered.split(_USER)
            return Frame(before, after, is_chat=True)
    raise ValueError("the chat template of this tokenizer does not accept a user turn; set model.chat to never")


def added_system(tokenizer: Tokenizer) -> str:
    """The system text that a chat template adds of its own where there is no instruction; empty if it adds none."""
    own, bare = (frame(tokenizer, "", chat).before for chat in ("auto", "bare"))
    if len(own) <= len(bare):
        return ""
    start = _n_shared(own, bare)
    end = _n_shared(own[start:][::-1], bare[start:][::-1])
    return own[start : len(own) - end].strip()


def _n_shared(a: str, b: str) -> int:
    """Characters that two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _rendered(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str | None:
    """The messages in the tokenizer's template, or None if it refuses them. Raises ValueError if it does not end."""

    def render() -> str:
        template = _dated(tokenizer.get_chat_template())
        options = {"chat_template": template, "tokenize": False, "add_generation_prompt": True}
        return str(tokenizer.apply_chat_template(messages, **options))

    try:
        return within_limit(render)
    except TimeoutError:
        raise ValueError("the chat template of this tokenizer does not end; set model.chat to never") from None
    except Exception:  # whatever the template's author chose to raise
        return None


def _dated(template: str) -> str:
    """The template with one date for every day on which it is asked for (Llama 3.2 writes today's into each prompt).

    Otherwise a run that goes on tomorrow would train on other prompts than it was trained on, and arms would differ.
    """
    formats = dict.fromkeys(shown for _, shown in _DATE_FORMAT.findall(template))
    if not formats:
        return template
    dates = json.dumps({shown: TEMPLATE_DATE.strftime(shown) for shown in formats})
    return f"{{% macro strftime_now(shown) %}}{{{{ {dates}[shown] }}}}{{% endmacro %}}{{{{ '' }}}}{template}"


def begun(tokenizer: Tokenizer, head_ids: list[int], is_chat: bool) -> list[int]:
    """The tokens that a prompt begins with, behind the begin token if there is one.

    A chat template that leaves it out means so, unless the tokenizer writes it before every text: Phi-3 has a begin
    token that never stood before a conversation.
    """
    bos = tokenizer.bos_token_id
    if bos is None or head_ids[:1] == [bos] or (is_chat and list(tokenizer("a")["input_ids"])[:1] != [bos]):
        return head_ids
    return [bos, *head_ids]


def with_mark(prompt: Prompt, tokenizer: Tokenizer, of_family: Sequence[str], rows_train: bool) -> Prompt:
    """The prompt with `{mask}` filled in: the mark that stands for the first hidden span of a masked note.

    `of_family` and `rows_train` as for `choose_sentinels`.
    """
    if MASK not in prompt.question:
        return prompt
    mark = choose_sentinels(tokenizer, of_family, rows_train=rows_train)[0]
    return prompt.model_copy(update={"question": prompt.question.replace(MASK, mark)})


class PromptEncoder:
    """Encodes notes and questions for one tokenizer. Stateless but for caches; safe to build in every actor."""

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, tasks: Sequence[Task], chat: Chat = "auto") -> None:
        if not tokenizer.is_fast:
            raise ValueError("a fast tokenizer is needed: character offsets come from it")
        self.tokenizer = tokenizer
        self.prompt, self.chat = prompt, chat
        self._pieces = PieceEncoder(tokenizer)
        self.frame = frame(tokenizer, prompt.instruction, chat)
        self.head_ids = tuple(begun(tokenizer, self.ids(self.frame.before), self.frame.is_chat))
        self.eos_id: int | None = tokenizer.eos_token_id
        self.questions = {task.id: self._question(task) for task in tasks}

    def ids(self, text: str) -> list[int]:
        """Tokens of `text` alone, no special tokens added. Special tokens written in `text` are recognised only
        here, for template text; notes go through `note_ids`, where they are plain characters."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _question(self, task: Task) -> Question:
        options = ", ".join(task.answers)
        before, item, after = (
            part.replace("{question}", task.question).replace("{options}", options)
            for part in self.prompt.question.partition("{question}")
        )
        suffix = before + item + after + self.frame.after
        prefix = "" if self.frame.is_chat else self.prompt.answer_prefix
        suffix_ids, item_span = self._suffix(suffix, len(before), len(before) + len(item))
        return Question(
            task_id=task.id,
            suffix_ids=tuple(suffix_ids),
            option_ids=tuple(tuple(self.ids(prefix + answer)) for answer in task.answers),
            item=item_span,
            unmarked_ids=tuple(self.ids(MARK.sub("", suffix))),
        )

    def _suffix(self, text: str, start: int, end: int) -> tuple[list[int], tuple[int, int] | None]:
        """Tokens of `text`, each mark in it tokenised apart; and which of them touch the characters start..end."""
        ids: list[int] = []
        inside: list[int] = []
        for part, offset in _parts(text):
            if MARK.fullmatch(part):
                ids += mark_ids(self.tokenizer, self._pieces, part)
                continue
            encoded = self.tokenizer(part, add_special_tokens=False, return_offsets_mapping=True)
            for token, (a, b) in enumerate(encoded["offset_mapping"], start=len(ids)):
                if a + offset < end and b + offset > start:
                    inside.append(token)
            ids += encoded["input_ids"]
        return ids, (inside[0], inside[-1] + 1) if inside else None

    def note_ids(self, text: str) -> tuple[list[int], I32]:
        """Tokens of a note and their character offsets [N, 2]. Text that looks like a special token stays text."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
        return list(encoded["input_ids"]), np.asarray(encoded["offset_mapping"], dtype=np.int32).reshape(-1, 2)

    def encode(self, note_id: str, text: str, task_ids: Sequence[str]) -> EncodedNote:
        """Tokens of one note with its questions.

        Raises `RowError(NO_ROOM)` if the longest question leaves no room for the note, `RowError(EMPTY)` if the note
        has no token.
        """
        questions = tuple(self.questions[task_id] for task_id in task_ids)
        longest = max((len(q.suffix_ids) + max(map(len, q.option_ids)) for q in questions), default=0) + 1
        room = self.prompt.max_tokens - len(self.head_ids) - longest
        if room < 1:
            raise RowError(Code.NO_ROOM)
        note, offsets = self.note_ids(text)
        if not note:
            raise RowError(Code.EMPTY)
        n_cut = max(0, len(note) - room)
        part = slice(0, room) if self.prompt.keep == "head" else slice(n_cut, None)
        return EncodedNote(
            note_id=note_id,
            prefix_ids=(*self.head_ids, *note[part]),
            note_start=len(self.head_ids),
            offsets_N2=offsets[part],
            n_cut_tokens=n_cut,
            questions=questions,
            tokens_W2=tokens_of_words(offsets[part], word_spans(text)),
        )

    def encode_row(self, note: Mapping[str, Any], task_ids: Sequence[str]) -> EncodedNote | Code:
        """The same of a row of rows.NOTES; or the code of its error, or of what `encode` raises."""
        if note["error"] is not None:
            return Code(note["error"])
        try:
            return self.encode(note["note_id"], note["text"], task_ids)
        except RowError as error:
            return error.code
