"""What is to be made tokens of: a text by either of its names, or a conversation."""

from app.api.read import translate
from app.errors import InvalidRequest
from app.generation.job import ChatJob
from app.schemas.chat import ChatRequest
from app.schemas.tokenize import TemplateRequest, TokenizeRequest
from app.settings import ModelEntry, Settings


def text_of(request: TokenizeRequest, entry: ModelEntry, settings: Settings) -> tuple[str | ChatJob, bool]:
    """The text or conversation, and whether the tokenizer adds tokens of its own.

    By default it does for ``prompt``, as with vLLM, and does not for ``content``, as with llama.cpp, nor for a
    conversation, whose template writes them. Raises :class:`InvalidRequest` for none or several of the three.
    """
    given = [name for name in ("prompt", "content", "messages") if getattr(request, name) is not None]
    if len(given) != 1:
        problem = "one of them" if not given else f"one of them, not {' and '.join(given)}"
        raise InvalidRequest(f"prompt, content, messages: send {problem}.", param=given[1] if given else "prompt")
    if request.parse_special is False:
        raise InvalidRequest(
            "What is spelt like a special token is always one here; leave parse_special out.", param="parse_special"
        )
    if request.add_special_tokens is not None and request.add_special is not None:
        raise InvalidRequest("add_special is another name of add_special_tokens; send one.", param="add_special")
    asked = request.add_special if request.add_special_tokens is None else request.add_special_tokens
    special = request.prompt is not None if asked is None else asked
    if request.prompt is not None:
        return request.prompt, special
    if request.content is not None:
        return request.content, special
    return translate.chat(conversation(request), entry, settings), special


def conversation(request: TemplateRequest) -> ChatRequest:
    """The conversation as a chat would ask for an answer to it."""
    if request.messages is None:
        raise InvalidRequest("messages: send a list of them.", param="messages")
    if request.chat_template is not None:
        raise InvalidRequest("Templates come with models; leave chat_template out.", param="chat_template")
    return ChatRequest(
        messages=request.messages,
        tools=request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
        chat_template_kwargs=request.chat_template_kwargs,
        reasoning_effort=request.reasoning_effort,
        enable_thinking=request.enable_thinking,
    )
