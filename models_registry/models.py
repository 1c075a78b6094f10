"""The models a team considers, and the connections to the services that run some of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from lumigator.models import OwnedQuerySet, Team
from models_registry.providers import Access, Provider, serving

MOST_AT_ONCE = 128
"""Calls in flight over one connection: above 256 a process spends its time on switching threads (PERFORMANCE §4)."""


def vault() -> MultiFernet:
    """Encrypts with the first key of LUMIGATOR_ENCRYPTION_KEYS and decrypts with any of them."""
    return MultiFernet([Fernet(key) for key in settings.ENCRYPTION_KEYS])


class ConnectionQuerySet(OwnedQuerySet):
    def serving(self, scheme: str, name: str = "") -> Connection | None:
        """The enabled connection of `scheme` (with this name, for endpoints), or None."""
        rows = self.filter(provider=scheme, enabled=True)
        return (rows.filter(name=name) if name else rows).order_by("id").first()


class Connection(models.Model):
    """How to reach a service: its address, its key (write-only, encrypted), its limits.

    The key belongs to the address it was given for: saving another scheme, host or port clears it (SECURITY S14).
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="connections")
    name = models.SlugField(max_length=60)
    provider = models.CharField(max_length=30, help_text="URI scheme: openai, mistral or endpoint.")
    base_url = models.URLField(max_length=300, blank=True, help_text="Empty: the provider's own address.")
    encrypted_key = models.BinaryField(null=True, blank=True, editable=False)
    key_hint = models.CharField(max_length=8, blank=True, editable=False, help_text="The key's last 4 characters.")
    concurrency = models.PositiveSmallIntegerField(
        default=8, validators=[MinValueValidator(1), MaxValueValidator(MOST_AT_ONCE)]
    )
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    connect_timeout = models.FloatField(default=5.0, help_text="Seconds.")
    read_timeout = models.FloatField(default=60.0, help_text="Seconds.")
    version = models.PositiveIntegerField(default=1, editable=False)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ConnectionQuerySet.as_manager()

    class Meta:
        ordering = ["provider", "name"]
        constraints = [models.UniqueConstraint(fields=["team", "provider", "name"], name="one_connection_per_name")]

    def __str__(self) -> str:
        return f"{self.provider}: {self.name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk:
            stored = Connection.objects.filter(pk=self.pk).first()
            if stored and stored.origin != self.origin and stored.encrypted_key == self.encrypted_key:
                self.set_key("")
            self.version += 1
            if (fields := kwargs.get("update_fields")) is not None:
                kwargs["update_fields"] = {*fields, "encrypted_key", "key_hint", "version"}
        super().save(*args, **kwargs)

    @property
    def origin(self) -> tuple[str, str, str, int | None]:
        """Where the key goes: an empty address is the provider's own, so the provider is part of it."""
        parts = urlsplit(self.base_url)
        return self.provider, parts.scheme, parts.hostname or "", parts.port

    @property
    def has_key(self) -> bool:
        return bool(self.encrypted_key)

    def set_key(self, key: str) -> None:
        """Store `key` encrypted (an empty one forgets it). The caller saves."""
        self.encrypted_key = vault().encrypt(key.encode()) if key else None
        self.key_hint = key[-4:] if len(key) >= 12 else ""

    def reveal_key(self) -> str:
        """The key in clear, for the call path only. Raises ValueError when no current encryption key opens it."""
        if not self.encrypted_key:
            return ""
        try:
            return vault().decrypt(bytes(self.encrypted_key)).decode()
        except InvalidToken:
            raise ValueError(
                f"the key of connection {self.name!r} was encrypted with a key that is no longer among "
                "LUMIGATOR_ENCRYPTION_KEYS: add the old key to the list, or enter the provider's key again"
            ) from None

    def access(self) -> Access:
        return Access(
            base_url=self.base_url,
            key=self.reveal_key(),
            concurrency=min(self.concurrency, MOST_AT_ONCE),
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            allow_private=tuple(settings.EGRESS_ALLOW),
        )


class Allowance(models.Model):
    """What is left of a connection's rates, shared by every worker process: a token bucket by the database's clock.

    `requests` and `tokens` may be taken now; tokens may be owed (below 0), for a call is known after it was made.
    Nothing is begun over the connection before `not_before`: the provider asked for a pause. No row: nothing was
    taken yet.
    """

    connection = models.OneToOneField(
        Connection, on_delete=models.CASCADE, primary_key=True, related_name="allowance", editable=False
    )
    requests = models.FloatField(default=0)
    tokens = models.FloatField(default=0)
    filled_at = models.DateTimeField(db_default=Now())
    not_before = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.requests:.0f} requests and {self.tokens:.0f} tokens left of {self.connection_id}"


class ModelRoot(models.Model):
    """A folder of this machine below which local models may lie (SECURITY S24). Registered by administrators only."""

    name = models.SlugField(max_length=60, unique=True)
    path = models.CharField(max_length=400)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return f"{self.name} = {self.path}"


class ModelEntry(models.Model):
    """A model that can be a candidate: where it is, what it needs, what it costs.

    `uri`: `hf://org/name@revision`, `file://root-id/path`, `openai://name`, `mistral://name`,
    `endpoint://connection/name`, `baseline://lead-3`, `import://`. Prices are US dollars per million tokens;
    null means unpriced, which is never the same as free. `price_date` is the day of which the price is.

    `state` is changed by `curating.move` only, which keeps the history; `enabled` follows from it.
    """

    class Architecture(models.TextChoices):
        SEQ2SEQ = "seq2seq", "Encoder-decoder"
        CAUSAL = "causal", "Causal (chat)"
        EXTRACTIVE = "extractive", "Extractive"
        IMPORTED = "imported", "Outputs made elsewhere"

    class Privacy(models.TextChoices):
        LOCAL = "local", "Runs here: documents stay on this installation"
        PRIVATE = "private", "Own endpoint: documents go to a host your administrator allowed"
        EXTERNAL = "external", "External: documents go to the provider"

    class State(models.TextChoices):
        DRAFT = "draft", "Draft"
        CHECKED = "checked", "Checked"
        ENABLED = "enabled", "Enabled"
        RETIRED = "retired", "Retired"

    USABLE = (State.CHECKED, State.ENABLED)

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="models")
    slug = models.CharField(max_length=120)
    name = models.CharField(max_length=160)
    uri = models.CharField("URI", max_length=400)
    revision = models.CharField(max_length=64, blank=True, help_text="Commit of the hub repository, 40 hex digits.")
    about = models.TextField(blank=True)
    architecture = models.CharField(max_length=10, choices=Architecture.choices)
    privacy = models.CharField(max_length=10, choices=Privacy.choices)
    tasks = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    generation = models.JSONField(default=dict, blank=True, help_text="Generation defaults; they are really applied.")
    options = models.JSONField(default=dict, blank=True)
    window = models.PositiveIntegerField(null=True, blank=True, help_text="Context window in tokens.")
    parameters = models.BigIntegerField(null=True, blank=True, help_text="Number of parameters.")
    size_bytes = models.BigIntegerField(null=True, blank=True)
    licence = models.CharField(max_length=80, blank=True)
    website = models.URLField(blank=True)
    price_in = models.DecimalField("price of input", max_digits=12, decimal_places=6, null=True, blank=True)
    price_out = models.DecimalField("price of output", max_digits=12, decimal_places=6, null=True, blank=True)
    price_cached = models.DecimalField("price of cached input", max_digits=12, decimal_places=6, null=True, blank=True)
    price_source = models.CharField(max_length=200, blank=True, help_text="Where the price stands.")
    price_date = models.DateField(
        "date of the price", null=True, blank=True, help_text="The day on which the price was so."
    )
    is_baseline = models.BooleanField(default=False)
    from_catalogue = models.BooleanField(default=False, editable=False)
    state = models.CharField(max_length=8, choices=State.choices, default=State.ENABLED, editable=False)
    enabled = models.GeneratedField(
        expression=Q(state__in=USABLE),  # type: ignore[arg-type]  # the stubs know expressions only
        output_field=models.BooleanField(),
        db_persist=True,
        help_text="Whether new experiments may choose it: it is checked or enabled.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["is_baseline", "slug"]
        verbose_name_plural = "model entries"
        constraints = [
            models.UniqueConstraint(fields=["team", "slug"], name="one_model_per_slug"),
            models.CheckConstraint(
                condition=Q(state__in=["draft", "checked", "enabled", "retired"]), name="a_known_state_of_a_model"
            ),
        ]

    def __str__(self) -> str:
        return self.slug

    @property
    def scheme(self) -> str:
        return self.uri.partition("://")[0]

    @property
    def provider(self) -> Provider:
        """The plug-in that runs it. Raises ProviderError for a scheme that nobody serves."""
        return serving(self.scheme)

    @property
    def is_free(self) -> bool:
        """Whether it costs no money by its nature: it runs here (not: its price is unknown)."""
        return self.privacy == self.Privacy.LOCAL

    @property
    def is_usable(self) -> bool:
        """Whether new experiments may choose it. Unlike `enabled` it follows `state` at once."""
        return self.state in self.USABLE


class ModelChange(models.Model):
    """A step in a model's life: who moved it, when, from which state to which. A trigger refuses UPDATE; a row goes
    only with its model."""

    entry = models.ForeignKey(ModelEntry, on_delete=models.CASCADE, related_name="changes")
    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=150)
    before = models.CharField(max_length=8, blank=True)
    after = models.CharField(max_length=8)
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.actor}: {self.before or 'new'} to {self.after}"


class ModelCheck(models.Model):
    """One trial of a model: asked for by a person, done by a worker of `queue`, which loads the model or calls its
    service once. `report` is described in `trying`. The row is the request; a bell only makes it quicker."""

    class State(models.TextChoices):
        ASKED = "asked", "Waiting for a worker"
        RUNNING = "running", "Being tried"
        DONE = "done", "It works"
        FAILED = "failed", "It does not work"

    OPEN = (State.ASKED, State.RUNNING)

    entry = models.ForeignKey(ModelEntry, on_delete=models.CASCADE, related_name="checks")
    state = models.CharField(max_length=8, choices=State.choices, default=State.ASKED)
    queue = models.CharField(max_length=10)
    asked_by = models.CharField(max_length=150, blank=True)
    asked_at = models.DateTimeField(db_default=Now())
    begun_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    host = models.CharField(max_length=120, blank=True, help_text="The worker that did it.")
    attempts = models.PositiveSmallIntegerField(default=0)
    report = models.JSONField(default=dict)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["entry"], condition=Q(state__in=["asked", "running"]), name="one_open_check_per_model"
            )
        ]
        indexes = [
            models.Index(fields=["queue"], name="open_checks", condition=Q(state__in=["asked", "running"])),
        ]

    def __str__(self) -> str:
        return f"check {self.pk} of {self.entry_id}: {self.state}"

    @property
    def is_open(self) -> bool:
        return self.state in self.OPEN

    @property
    def label(self) -> str:
        return str(self.get_state_display())

    @property
    def tone(self) -> str:
        return {"asked": "calm", "running": "busy", "done": "good"}.get(self.state, "bad")
