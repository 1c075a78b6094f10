"""Models get a life (draft, checked, enabled, retired) with its history, checks by workers, and dated prices;
connections share their allowed rate.

An entry that was enabled stays so; one that was disabled is retired. A price whose source ended with its date keeps
both, apart.
"""

from datetime import date

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

FORWARD = """
CREATE FUNCTION registry_history_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER history_is_kept BEFORE UPDATE ON registry_modelchange
    FOR EACH ROW EXECUTE FUNCTION registry_history_is_kept();
"""
BACKWARD = """
DROP TRIGGER history_is_kept ON registry_modelchange;
DROP FUNCTION registry_history_is_kept();
"""


def retire_what_was_disabled(apps, schema_editor):
    apps.get_model("registry", "ModelEntry").objects.filter(enabled=False).update(state="retired")


def disable_what_is_no_longer_chosen(apps, schema_editor):
    entries = apps.get_model("registry", "ModelEntry").objects
    entries.filter(state__in=["draft", "retired"]).update(enabled=False)


def read_the_dates_of_prices(apps, schema_editor):
    entries = apps.get_model("registry", "ModelEntry").objects
    for entry in entries.filter(price_source__regex=r"\d{4}-\d{2}-\d{2}$"):
        words, _, day = entry.price_source.rpartition(" ")
        try:
            found = date.fromisoformat(day)
        except ValueError:
            continue
        entries.filter(pk=entry.pk).update(price_source=words.rstrip(" ,"), price_date=found)


STATES = [("draft", "Draft"), ("checked", "Checked"), ("enabled", "Enabled"), ("retired", "Retired")]
CHECK_STATES = [
    ("asked", "Waiting for a worker"),
    ("running", "Being tried"),
    ("done", "It works"),
    ("failed", "It does not work"),
]
NOW = django.db.models.functions.datetime.Now()
KEY = models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


class Migration(migrations.Migration):
    dependencies = [("registry", "0001_initial")]
    operations = [
        migrations.AddField(
            "modelentry",
            "price_date",
            models.DateField(
                blank=True,
                help_text="The day on which the price was so.",
                null=True,
                verbose_name="date of the price",
            ),
        ),
        migrations.AlterField(
            "modelentry",
            "price_source",
            models.CharField(blank=True, help_text="Where the price stands.", max_length=200),
        ),
        migrations.RunPython(read_the_dates_of_prices, migrations.RunPython.noop),
        migrations.AddField(
            "modelentry", "state", models.CharField(choices=STATES, default="enabled", editable=False, max_length=8)
        ),
        migrations.RunPython(retire_what_was_disabled, disable_what_is_no_longer_chosen),
        migrations.RemoveField("modelentry", "enabled"),
        migrations.AddField(
            "modelentry",
            "enabled",
            models.GeneratedField(
                db_persist=True,
                expression=models.Q(("state__in", ("checked", "enabled"))),
                help_text="Whether new experiments may choose it: it is checked or enabled.",
                output_field=models.BooleanField(),
            ),
        ),
        migrations.AddConstraint(
            "modelentry",
            models.CheckConstraint(
                condition=models.Q(("state__in", ["draft", "checked", "enabled", "retired"])),
                name="a_known_state_of_a_model",
            ),
        ),
        migrations.CreateModel(
            name="ModelChange",
            fields=[
                ("id", KEY),
                ("at", models.DateTimeField(db_default=NOW)),
                ("actor", models.CharField(max_length=150)),
                ("before", models.CharField(blank=True, max_length=8)),
                ("after", models.CharField(max_length=8)),
                ("note", models.CharField(blank=True, max_length=300)),
                (
                    "entry",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="changes", to="registry.modelentry"
                    ),
                ),
            ],
            options={"ordering": ["-id"]},
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.CreateModel(
            name="ModelCheck",
            fields=[
                ("id", KEY),
                ("state", models.CharField(choices=CHECK_STATES, default="asked", max_length=8)),
                ("queue", models.CharField(max_length=10)),
                ("asked_by", models.CharField(blank=True, max_length=150)),
                ("asked_at", models.DateTimeField(db_default=NOW)),
                ("begun_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                ("host", models.CharField(blank=True, help_text="The worker that did it.", max_length=120)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("report", models.JSONField(default=dict)),
                (
                    "entry",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="checks", to="registry.modelentry"
                    ),
                ),
            ],
            options={"ordering": ["-id"]},
        ),
        migrations.AddIndex(
            "modelcheck",
            models.Index(condition=models.Q(("state__in", ["asked", "running"])), fields=["queue"], name="open_checks"),
        ),
        migrations.AddConstraint(
            "modelcheck",
            models.UniqueConstraint(
                condition=models.Q(("state__in", ["asked", "running"])),
                fields=("entry",),
                name="one_open_check_per_model",
            ),
        ),
        migrations.AlterField(
            "connection",
            "concurrency",
            models.PositiveSmallIntegerField(
                default=8,
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(128),
                ],
            ),
        ),
        migrations.CreateModel(
            name="Allowance",
            fields=[
                (
                    "connection",
                    models.OneToOneField(
                        editable=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="allowance",
                        serialize=False,
                        to="registry.connection",
                    ),
                ),
                ("requests", models.FloatField(default=0)),
                ("tokens", models.FloatField(default=0)),
                ("filled_at", models.DateTimeField(db_default=NOW)),
                ("not_before", models.DateTimeField(null=True)),
            ],
        ),
    ]
