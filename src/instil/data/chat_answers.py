"""Answers of a conversation in the text of its chat template."""

from __future__ import annotations

from collections.abc import Mapping

from instil.data.chat_rows import ChatRow
from instil.data.chat_template import ChatTemplate, Span


def marked_answers(template: ChatTemplate, row: ChatRow, first: int = 0) -> tuple[str, list[Span]]:
    """Return the text of a conversation and the answers that its template marks.

    Args:
        template: template with marks.
        row: the conversation.
        first: index of the first message whose answer is learned.

    Raises:
        ValueError: if the row excludes an answer and the marks do not have one part per answer.
    """
    text, spans = template.render_marked(row.messages, row.where, row.tools)
    answers = [index for index, turn in enumerate(row.messages) if turn["role"] == "assistant"]
    if row.excluded and len(spans) != len(answers):
        raise ValueError(
            f"{row.where}: message {row.excluded[0]} is excluded from the loss, but the chat "
            f"template marks {len(spans)} parts of {len(answers)} answers. Expected one part per "
            "answer"
        )
    if row.excluded:
        pairs = zip(spans, answers, strict=True)
        spans = [span for span, index in pairs if index not in row.excluded]
    if first:
        before = template.render(row.messages[:first], row.where, row.tools, with_prompt=True)
        spans = [span for span in spans if span[0] >= len(before)]
    return text, spans


def answer_spans(template: ChatTemplate, text: str, row: ChatRow, first: int = 0) -> list[Span]:
    """Find the answers in the text of a conversation by the texts of its beginnings.

    An answer starts where the text of the earlier turns with the beginning of an answer ends.

    Args:
        template: template of the conversation.
        text: text of the whole conversation.
        row: the conversation.
        first: index of the first message whose answer is learned.

    Returns:
        Characters of each answer, with its end of turn.

    Raises:
        ValueError: if the text of a beginning is not the beginning of the whole text.
    """
    spans = []
    messages = row.messages
    for index in row.answers():
        if index < first or index in row.excluded:
            continue
        before = _prompt(template, row, index)
        after = text
        if index + 1 < len(messages):
            after = template.render(messages[: index + 1], row.where, row.tools)
        if not (
            before
            and text.startswith(before)
            and text.startswith(after)
            and len(before) < len(after)
        ):
            if not index:
                raise ValueError(
                    f"{row.where}: the conversation begins with an answer, which the chat template "
                    "writes without a prompt. Expected a message of the user first. Add one, or "
                    "loss: false to this answer to learn the others"
                )
            is_last = index == row.answers()[-1]
            other = "" if is_last else ", or loss_on=completion to learn the last answer only"
            raise ValueError(
                f"{row.where}: the answer in message {index} cannot be located, because the chat "
                "template writes earlier turns differently once later ones follow. Expected a "
                f"template with {{% generation %}} marks. Set chat_template to such a file{other}"
            )
        spans.append((len(before), len(after)))
    return spans


def has_tools(text: str, row: ChatRow) -> bool:
    """Whether the text of a conversation has its tools, and those that messages call, by name.

    Args:
        text: text of the whole conversation.
        row: the conversation.
    """
    tools = list(row.tools or ())
    for message in row.messages:
        tools += message.get("tool_calls") or ()
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping) and str(function.get("name", "")) not in text:
            return False
    return True


def _prompt(template: ChatTemplate, row: ChatRow, index: int) -> str:
    """Text in front of the answer in a message; empty if the template writes no such text."""
    try:
        return template.render(row.messages[:index], row.where, row.tools, with_prompt=True)
    except ValueError:
        # Many templates read the first message, which an empty beginning does not have.
        if index:
            raise
        return ""
