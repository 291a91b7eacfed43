"""Chat messages, tagged by role, and their content parts, tagged by type.

Source of the shapes: OpenAI's chat completions reference (``ChatCompletionMessageParam``).
"""

from typing import Any, Literal

from msgspec import Struct


class TextPart(Struct, tag="text", tag_field="type"):
    """A piece of text."""

    text: str


class RefusalPart(Struct, tag="refusal", tag_field="type"):
    """An earlier answer's refusal, as text."""

    refusal: str


class InputTextPart(Struct, tag="input_text", tag_field="type"):
    """A piece of text, as the Responses API calls it in conversations that come from there."""

    text: str


class OutputTextPart(Struct, tag="output_text", tag_field="type"):
    """A piece of an earlier answer's text, likewise."""

    text: str


class ImagePart(Struct, tag="image_url", tag_field="type"):
    """An image. Parts that are no text are refused by text models, so that nothing else of them is looked at."""

    image_url: Any = None


class InputImagePart(Struct, tag="input_image", tag_field="type"):
    """An image, as the Responses API calls it."""


class ImageBlock(Struct, tag="image", tag_field="type"):
    """An image, as Anthropic and templates call it."""


class AudioPart(Struct, tag="input_audio", tag_field="type"):
    """Audio."""

    input_audio: Any = None


class AudioURLPart(Struct, tag="audio_url", tag_field="type"):
    """Audio by its place, as vLLM calls it."""


class VideoPart(Struct, tag="video_url", tag_field="type"):
    """A film by its place, as vLLM calls it."""


class FilePart(Struct, tag="file", tag_field="type"):
    """A file by id or by its bytes."""

    file: Any = None


class InputFilePart(Struct, tag="input_file", tag_field="type"):
    """A file, as the Responses API calls it."""


ForeignPart = ImagePart | InputImagePart | ImageBlock | AudioPart | AudioURLPart | VideoPart | FilePart | InputFilePart
Part = TextPart | RefusalPart | InputTextPart | OutputTextPart | ForeignPart
Content = str | list[Part]


class FunctionCall(Struct):
    """A function's name and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Struct):
    """A call that the assistant made."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class AudioReference(Struct):
    """An earlier answer's audio by id; there is none here."""

    id: str


class SystemMessage(Struct, tag="system", tag_field="role"):
    """Instructions."""

    content: Content
    name: str | None = None


class DeveloperMessage(Struct, tag="developer", tag_field="role"):
    """Instructions, by OpenAI's newer name; templates that do not know it are given ``system``."""

    content: Content
    name: str | None = None


class UserMessage(Struct, tag="user", tag_field="role"):
    """What the person says."""

    content: Content
    name: str | None = None


class AssistantMessage(Struct, tag="assistant", tag_field="role"):
    """What the model said, or called."""

    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    audio: AudioReference | None = None


class ToolMessage(Struct, tag="tool", tag_field="role"):
    """What a tool answered."""

    content: Content
    tool_call_id: str


class FunctionMessage(Struct, tag="function", tag_field="role"):
    """What a function answered, in the legacy form."""

    content: Content | None
    name: str


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage
