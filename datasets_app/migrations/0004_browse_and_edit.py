"""Examples know their length, so that they are sorted by it; a dataset knows what made it of its parent, and whether it
is sealed. Neither of the two changes once it is ready: nobody unseals a dataset."""

import django.db.models.functions.text
from django.db import migrations, models

FORWARD = """
CREATE OR REPLACE FUNCTION datasets_keep_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'importing' AND NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'dataset %: % never becomes %', OLD.id, OLD.state, NEW.state;
    END IF;
    IF OLD.state = 'ready' AND (NEW.sha256, NEW.n_examples, NEW.columns, NEW.edit, NEW.sealed) IS DISTINCT FROM
                               (OLD.sha256, OLD.n_examples, OLD.columns, OLD.edit, OLD.sealed) THEN
        RAISE EXCEPTION 'dataset % is ready and cannot be changed', OLD.id;
    END IF;
    RETURN NEW;
END $$;
"""
BACKWARD = """
CREATE OR REPLACE FUNCTION datasets_keep_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'importing' AND NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'dataset %: % never becomes %', OLD.id, OLD.state, NEW.state;
    END IF;
    IF OLD.state = 'ready' AND (NEW.sha256, NEW.n_examples, NEW.columns) IS DISTINCT FROM
                               (OLD.sha256, OLD.n_examples, OLD.columns) THEN
        RAISE EXCEPTION 'dataset % is ready and cannot be changed', OLD.id;
    END IF;
    RETURN NEW;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("datasets", "0003_imports_are_work")]
    operations = [
        migrations.AddField(
            model_name="dataset",
            name="edit",
            field=models.JSONField(
                default=dict, editable=False, help_text="What made it of its parent (`datasets_app.editing`)."
            ),
        ),
        migrations.AddField(
            model_name="dataset",
            name="sealed",
            field=models.BooleanField(
                default=False,
                editable=False,
                help_text="Kept back: only the final confirmation may use it, never a comparison.",
            ),
        ),
        migrations.AddField(
            model_name="import",
            name="place",
            field=models.PositiveIntegerField(
                default=0, help_text="Of an edit: examples of the parent that were gone through."
            ),
        ),
        migrations.AddField(
            model_name="example",
            name="n_characters",
            field=models.GeneratedField(
                db_persist=True,
                expression=django.db.models.functions.text.Length("source"),
                output_field=models.PositiveIntegerField(),
            ),
        ),
        migrations.AddIndex(
            model_name="example",
            index=models.Index(fields=["dataset", "n_characters", "index"], name="example_by_length"),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
