"""The database refuses an illegal state change of an experiment or a work unit, and an epoch that goes back.

The tables are copied from `evaluations.states` as they were when this migration was written; a test compares them,
so that a new state arrives with a new migration.
"""

from django.db import migrations

EXPERIMENT = [
    "draft>planning", "draft>cancelled", "planning>running", "planning>failed", "planning>cancelling",
    "running>paused", "running>cancelling", "running>completed", "running>completed_with_errors", "running>failed",
    "paused>planning", "paused>running", "paused>cancelling", "cancelling>cancelled",
    "cancelled>planning", "failed>planning", "completed>planning", "completed_with_errors>planning",
]  # fmt: skip
UNIT = [
    "ready>leased", "ready>cancelled", "leased>ready", "leased>done", "leased>split", "leased>failed",
    "leased>cancelled",
]  # fmt: skip


def checker(table: str, function: str, legal: list[str], extra: str = "") -> str:
    pairs = ", ".join(f"'{pair}'" for pair in legal)
    return f"""
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> OLD.state AND NOT (OLD.state || '>' || NEW.state) IN ({pairs}) THEN
        RAISE EXCEPTION '{table} %: % never becomes %', OLD.id, OLD.state, NEW.state;
    END IF;{extra}
    RETURN NEW;
END $$;
CREATE TRIGGER legal_state_changes BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}();
"""


FENCE = """
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'work unit %: the epoch never goes back', OLD.id;
    END IF;"""
FORWARD = checker("evaluations_experiment", "evaluations_experiment_states", EXPERIMENT) + checker(
    "evaluations_workunit", "evaluations_workunit_states", UNIT, FENCE
)
BACKWARD = """
DROP TRIGGER legal_state_changes ON evaluations_experiment;
DROP TRIGGER legal_state_changes ON evaluations_workunit;
DROP FUNCTION evaluations_experiment_states();
DROP FUNCTION evaluations_workunit_states();
"""


class Migration(migrations.Migration):
    dependencies = [("evaluations", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
