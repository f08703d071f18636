"""What OpenAI's clients send to ``/v1``, as far as AI Lab takes part in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints

from ai_lab.chat.schemas import ChatOptions
from ai_lab.shapes import WHOLE, JsonObject, ShortText, Text

_MAX_MESSAGES = 10_000
_MAX_TOOLS = 128
_MAX_INPUTS = 2048

Name = Annotated[ShortText, StringConstraints(min_length=1)]


class _Lenient(BaseModel):
    """Clients send back what they were sent, with fields of their own; what is not known is left alone."""

    model_config = ConfigDict(extra="ignore")


class TextPart(_Lenient):
    """Text."""

    type: Literal["text"]
    text: Text
    cache_control: JsonObject | None = Field(
        default=None, description="Up to here the service keeps the prompt in its own cache: Anthropic, OpenRouter."
    )


class RefusalPart(_Lenient):
    """What an assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: Text


class ImageAddress(_Lenient):
    """An image: an address, or the image itself as ``data:image/…;base64,…``."""

    url: Annotated[str, StringConstraints(min_length=1)]
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Lenient):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageAddress


class OtherPart(_Lenient):
    """Audio and files, which no model here takes; the answer is 400 ``unsupported_feature``."""

    type: Literal["input_audio", "file"]


Part = Annotated[TextPart | RefusalPart | ImagePart | OtherPart, Field(discriminator="type")]


class CalledFunction(_Lenient):
    """Which function to call, and its arguments as JSON text."""

    name: Name
    arguments: Text


class ToolCall(_Lenient):
    """A call that the model asked for."""

    id: ShortText
    type: Literal["function"] = "function"
    function: CalledFunction
    extra_content: JsonObject | None = Field(default=None, description="What the service wants back as it was sent.")


class PromptMessage(_Lenient):
    """A message of the prompt."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None
    name: ShortText | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: ShortText | None = None


class FunctionShape(_Lenient):
    """A function that the model may ask to be called; ``parameters`` is a JSON schema."""

    name: Name
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: StrictBool | None = None


class Tool(_Lenient):
    """A tool; functions are the one kind there is."""

    type: Literal["function"]
    function: FunctionShape


class ChosenFunction(_Lenient):
    """The name of a function."""

    name: Name


class ChosenTool(_Lenient):
    """The one tool that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class NamedSchema(_Lenient):
    """A JSON schema and what it is called."""

    name: Name
    description: Text | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: StrictBool | None = None


class TextFormat(_Lenient):
    """Any text."""

    type: Literal["text"]


class JsonFormat(_Lenient):
    """Some JSON object."""

    type: Literal["json_object"]


class SchemaFormat(_Lenient):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")]


class StreamOptions(_Lenient):
    """``include_usage``: a last chunk tells the tokens."""

    include_usage: StrictBool | None = None


class CompletionRequest(ChatOptions):
    """A chat without memory. What is not named here is ignored; the answer's ``warnings`` say so."""

    messages: list[PromptMessage] = Field(min_length=1, max_length=_MAX_MESSAGES)
    model: ShortText | None = Field(
        default=None, description="provider/model, a bare name, or an alias. Left out: the default."
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = Field(
        default=None, description="As max_tokens, which it overrules."
    )
    n: Annotated[int, Field(ge=1, le=128), WHOLE] | None = Field(default=None, description="Only 1.")
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = Field(default=None, max_length=_MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    response_format: ResponseFormat | None = None
    use_cache: StrictBool | None = Field(
        default=None, description="AI Lab's own. False: ask the model anew, also where it was asked the same before."
    )
    local_only: StrictBool | None = Field(
        default=None, description="AI Lab's own. True: refuse any model outside this machine."
    )


def _no_tokens(value: Any) -> Any:
    if isinstance(value, list) and value and not isinstance(value[0], str):
        raise ValueError("must be a text or a list of texts; token numbers are not taken, send the text they stand for")
    return value


EmbeddingText = Annotated[Text, StringConstraints(min_length=1)]
EmbeddingInput = Annotated[
    EmbeddingText | Annotated[list[EmbeddingText], Field(min_length=1, max_length=_MAX_INPUTS)],
    BeforeValidator(_no_tokens),
]


class EmbeddingRequest(_Lenient):
    """Texts to turn into vectors."""

    model: Name
    input: EmbeddingInput
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        default=None, description="Not supported: leave it out."
    )
    local_only: StrictBool | None = Field(
        default=None, description="AI Lab's own. True: refuse any model outside this machine."
    )
