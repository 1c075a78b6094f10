"""The API of online inference: one text or conversation, one model, one answer; ours, and OpenAI's chat completions.

Both wait for the answer of a worker. Ours answers 202 with an address to ask again when it takes longer than `wait`
seconds; OpenAI's protocol knows no such thing, so there it is an error that says so.
"""

# mypy: disable-error-code="assignment"
# Fields may be called like attributes of DRF's own classes (label): its metaclass takes them out.

from __future__ import annotations

import time
from threading import BoundedSemaphore
from typing import Any

from django.db.models import QuerySet
from django.urls import path, reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from datasets_app.models import Dataset, Example
from evaluations import completing, planning
from evaluations.completing import ROLES, Wish
from evaluations.models import Completion
from evaluations.shapes import LARGEST_SEED, LONGEST_PROMPT, Strict
from lumigator.access import record, team_of
from lumigator.api import field_errors, only
from lumigator.parsing import StrictJSON
from lumigator.schema import problem
from models_registry import choosing
from models_registry.models import ModelEntry

WAIT = 60.0
LONGEST_WAIT = 110.0
SEATS = 4
"""Requests of one web process that may wait at a time: each holds a thread, and the pages need some, too."""
WAITING = BoundedSemaphore(SEATS)
FAILED = problem("The model, its service or its worker failed; the detail says why.")


class MessageSerializer(Strict):
    role = serializers.ChoiceField(choices=ROLES)
    content = serializers.CharField(max_length=completing.LONGEST_TEXT, trim_whitespace=False, allow_blank=True)


class ExampleOfSerializer(Strict):
    dataset = serializers.IntegerField()
    index = serializers.IntegerField(min_value=0)


class NewCompletionSerializer(Strict):
    """Exactly one of `text`, `messages` and `example`."""

    model = serializers.CharField(max_length=400, help_text="A slug of the registry, or a URI.")
    text = serializers.CharField(
        max_length=completing.LONGEST_TEXT, required=False, trim_whitespace=False,
        help_text="A document to summarize: the prompt is put around it for models that follow instructions.",
    )  # fmt: skip
    messages = MessageSerializer(many=True, required=False, help_text="A conversation, sent as it is.")
    example = ExampleOfSerializer(required=False, help_text="A document of a dataset; its privacy is kept.")
    prompt = serializers.CharField(max_length=LONGEST_PROMPT, required=False, trim_whitespace=False)
    generation = serializers.DictField(required=False, help_text="Generation parameters over those of the entry.")
    seed = serializers.IntegerField(min_value=0, max_value=LARGEST_SEED, default=0)
    wait = serializers.FloatField(min_value=0, max_value=LONGEST_WAIT, default=WAIT, help_text="Seconds.")


class UsageSerializer(serializers.Serializer[Any]):
    input_tokens = serializers.IntegerField(allow_null=True)
    output_tokens = serializers.IntegerField(allow_null=True)


class CompletionSerializer(serializers.ModelSerializer[Completion]):
    model = serializers.CharField(source="label")
    usage = serializers.SerializerMethodField()
    cost_usd = serializers.SerializerMethodField(help_text="Null: not known, for the model is unpriced.")
    status = serializers.CharField(help_text="ok, refused or empty; error when it failed; empty while it is not done.")

    class Meta:
        model = Completion
        fields = (
            "id", "model", "state", "status", "text", "reasoning", "finish_reason", "usage", "input_tokens_read",
            "latency_ms", "cost_usd", "error_code", "error", "asked_at", "done_at",
        )  # fmt: skip

    def get_usage(self, completion: Completion) -> dict[str, int | None]:
        return {"input_tokens": completion.input_tokens, "output_tokens": completion.output_tokens}

    def get_cost_usd(self, completion: Completion) -> float | None:
        return None if completion.cost_micro is None else completion.cost_micro / 1_000_000


class ModelFailed(APIException):
    status_code = status.HTTP_502_BAD_GATEWAY
    default_detail = "The model gave no answer."
    default_code = "model_failed"


class TooMany(APIException):
    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_detail = f"{SEATS} requests wait for their answers already: send this one again in a few seconds."
    default_code = "too_many"


class CompletionViewSet(viewsets.GenericViewSet[Completion]):
    """Online inference on a warm worker."""

    queryset = Completion.objects.none()
    serializer_class = NewCompletionSerializer
    parser_classes = [StrictJSON]
    lookup_value_regex = r"\d{1,18}"
    filter_backends = []
    pagination_class = None

    def get_queryset(self) -> QuerySet[Completion]:
        return Completion.objects.for_user(self.request.user).filter(team=team_of(self.request))

    @extend_schema(
        summary="Ask one model about one text, and wait for the answer",
        request=NewCompletionSerializer,
        responses={200: CompletionSerializer, 202: CompletionSerializer, 502: FAILED},
    )
    def create(self, request: Request) -> Response:
        body = NewCompletionSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        wish = Wish(
            text=asked.get("text", ""),
            messages=asked.get("messages", ()),
            example=_example(request, asked.get("example")),
            prompt=asked.get("prompt", ""),
            generation=asked.get("generation"),
            seed=asked["seed"],
        )
        made = _ask(request, asked["model"], wish)
        if asked["wait"] and WAITING.acquire(blocking=False):
            try:
                completing.wait(made, asked["wait"])
            finally:
                WAITING.release()
        return _told(made)

    @extend_schema(
        summary="An answer that took longer", responses={200: CompletionSerializer, 202: CompletionSerializer}
    )
    def retrieve(self, request: Request, pk: str) -> Response:
        only(request)
        return _told(self.get_object())


def _ask(request: Request, model: str, wish: Wish) -> Completion:
    try:
        made = completing.ask(team_of(request), request.user, model, wish)  # type: ignore[arg-type]
    except planning.Refused as error:
        raise ValidationError(error.errors) from None
    record(request, "completion", made, model=made.label)
    return made


def _told(completion: Completion) -> Response:
    data = CompletionSerializer(completion).data
    if completion.state == Completion.State.FAILED:
        raise ModelFailed(completion.error or "The model gave no answer.", code=completion.error_code)
    if completion.has_ended:
        return Response(data)
    headers = {"Location": reverse("api-completion-detail", args=[completion.pk]), "Retry-After": "2"}
    return Response(data, status=status.HTTP_202_ACCEPTED, headers=headers)


def _example(request: Request, named: dict[str, int] | None) -> Example | None:
    if named is None:
        return None
    mine = Dataset.objects.for_user(request.user).filter(team=team_of(request), pk=named["dataset"])
    found = Example.objects.select_related("dataset").filter(dataset__in=mine, index=named["index"]).first()
    if found is None:
        raise ValidationError({"example": [f"there is no document {named['index']} in a dataset {named['dataset']}"]})
    return found


# --- OpenAI's protocol ----------------------------------------------------------------------------------------------

RENAMED = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}
TAKEN = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "frequency_penalty", "presence_penalty")


class ChatMessageSerializer(Strict):
    """A message as OpenAI's clients write it: its content may be a list of texts, and that of an answer null."""

    role = serializers.ChoiceField(choices=ROLES)
    content = serializers.JSONField(allow_null=True)
    refusal = serializers.CharField(required=False, allow_null=True, allow_blank=True)
    name = serializers.CharField(required=False, max_length=200)

    def validate_content(self, content: Any) -> str:
        parts = [{"type": "text", "text": content or ""}] if content is None or isinstance(content, str) else content
        if not isinstance(parts, list) or not all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in parts
        ):
            raise serializers.ValidationError("give a text, or a list of parts of the type “text”")
        return "".join(part["text"] for part in parts)


class ChatSerializer(Strict):
    """What is taken of OpenAI's request; a field that would change the answer and is not taken is refused."""

    model = serializers.CharField(max_length=400)
    messages = ChatMessageSerializer(many=True)
    stop = serializers.JSONField(required=False)
    frequency_penalty = serializers.FloatField(required=False, allow_null=True)
    presence_penalty = serializers.FloatField(required=False, allow_null=True)
    user = serializers.JSONField(required=False, help_text="This and what follows changes no answer: not looked at.")
    metadata = serializers.JSONField(required=False)
    store = serializers.JSONField(required=False)
    service_tier = serializers.JSONField(required=False)
    temperature = serializers.FloatField(required=False, allow_null=True)
    top_p = serializers.FloatField(required=False, allow_null=True)
    max_tokens = serializers.IntegerField(required=False, allow_null=True, min_value=1)
    max_completion_tokens = serializers.IntegerField(required=False, allow_null=True, min_value=1)
    seed = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=LARGEST_SEED)
    stream = serializers.BooleanField(default=False)
    n = serializers.IntegerField(default=1)


class OpenAIViewSet(viewsets.ViewSet):
    """Registry models for tools that speak OpenAI's protocol: base URL `/api/v1/openai`, an API token as the key."""

    parser_classes = [StrictJSON]

    @extend_schema(summary="The models that can be asked", responses={200: OpenApiTypes.OBJECT})
    def models(self, request: Request) -> Response:
        entries = ModelEntry.objects.filter(team=team_of(request), enabled=True).order_by("slug")
        rows = [
            {"id": entry.slug, "object": "model", "created": 0, "owned_by": entry.provider.name}
            for entry in entries
            if not choosing.why_not(entry)
        ]
        return Response({"object": "list", "data": rows})

    @extend_schema(summary="A chat completion", request=ChatSerializer, responses={200: OpenApiTypes.OBJECT})
    def chat(self, request: Request) -> Response:
        try:
            return self._chat(request)
        except APIException as exc:
            return _openai_error(exc)

    def _chat(self, request: Request) -> Response:
        body = ChatSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        if asked["stream"]:
            raise ValidationError({"stream": ["answers are not streamed here: leave it out, or send false"]})
        if asked["n"] != 1:
            raise ValidationError({"n": ["one answer is given for each request: leave it out, or send 1"]})
        given = {name: asked[name] for name in TAKEN if asked.get(name) is not None}
        generation = {RENAMED.get(name, name): value for name, value in given.items()}
        said = [{"role": each["role"], "content": each["content"]} for each in asked["messages"]]
        wish = Wish(
            messages=said,
            generation=_as_local(request, asked["model"], generation),
            seed=asked.get("seed") or 0,
        )
        if not WAITING.acquire(blocking=False):
            raise TooMany
        try:
            ended = completing.wait(_ask(request, asked["model"], wish), LONGEST_WAIT)
        finally:
            WAITING.release()
        if not ended.has_ended:
            completing.take_back([ended])
            raise ModelFailed(f"No answer within {LONGEST_WAIT:.0f} seconds: make it an experiment, or start a worker.")
        if ended.state == Completion.State.FAILED:
            raise ModelFailed(ended.error or "The model gave no answer.")
        return Response(_as_openai(ended))


def _as_local(request: Request, model: str, generation: dict[str, Any]) -> dict[str, Any]:
    """A local model samples only when told to: a temperature above 0 says so; 0 is greedy, its way without a word."""
    entry = ModelEntry.objects.filter(team=team_of(request), slug=model).first()
    if entry is None or entry.provider.place == "network" or "temperature" not in generation:
        return generation
    if generation["temperature"] == 0:
        return {name: value for name, value in generation.items() if name not in ("temperature", "top_p")}
    return {**generation, "do_sample": True}


def _as_openai(completion: Completion) -> dict[str, Any]:
    refused = completion.status == "refused"
    usage = (completion.input_tokens or 0, completion.output_tokens or 0)
    message = {"role": "assistant", "content": None if refused else completion.text, "refusal": None}
    if refused:
        message["refusal"] = completion.text or completion.error
    finish = "content_filter" if refused else completion.finish_reason or "stop"
    return {
        "id": f"lumigator-{completion.pk}",
        "object": "chat.completion",
        "created": int(completion.asked_at.timestamp()) if completion.asked_at else int(time.time()),
        "model": completion.label,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }


def _openai_error(exc: APIException) -> Response:
    """OpenAI's clients look for {"error": {…}}, and retry what is 5xx unless they are told not to: the worker has
    tried already what trying again may cure, and each try may be billed."""
    if isinstance(exc, ValidationError):
        found = field_errors(exc.detail)
        sentences = [f"{each['loc']}: {each['msg']}" if each["loc"] else each["msg"] for each in found]
    else:
        sentences = [str(exc.detail)]
    kind = "invalid_request_error" if exc.status_code < 500 else "server_error"
    body = {"message": "; ".join(sentences), "type": kind, "param": None, "code": exc.default_code}
    wait = exc.status_code == status.HTTP_429_TOO_MANY_REQUESTS
    headers = {"Retry-After": "5"} if wait else {"x-should-retry": "false"}
    return Response({"error": body}, status=exc.status_code, headers=headers)


router = DefaultRouter()
router.register("completions", CompletionViewSet, basename="api-completion")

openai_urls = [  # as OpenAI's clients spell them: without a slash at the end
    path("models", OpenAIViewSet.as_view({"get": "models"}), name="api-openai-models"),
    path("chat/completions", OpenAIViewSet.as_view({"post": "chat"}), name="api-openai-chat"),
]
