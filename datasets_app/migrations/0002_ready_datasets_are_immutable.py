"""The examples of a dataset that is ready cannot be changed, added to or thinned out: an edit makes a child dataset.

Adding and removing are checked once a statement, by transition table, so that a copy of a million rows costs one
look. Deleting a dataset whole stays possible: `datasets_app.deleting` says so for its transaction.
"""

from django.db import migrations

FORWARD = """
CREATE FUNCTION datasets_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM datasets_dataset WHERE id = OLD.dataset_id AND state = 'ready') THEN
        RAISE EXCEPTION 'dataset % is ready and cannot be changed', OLD.dataset_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ready_datasets_are_immutable BEFORE UPDATE ON datasets_example
    FOR EACH ROW EXECUTE FUNCTION datasets_refuse_change();
CREATE FUNCTION datasets_refuse_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('lumigator.deleting', true) = 'yes' THEN
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT 1 FROM datasets_dataset
               WHERE state = 'ready' AND id IN (SELECT DISTINCT dataset_id FROM changed)) THEN
        RAISE EXCEPTION 'a ready dataset cannot be changed: make a child dataset';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ready_datasets_take_no_rows AFTER INSERT ON datasets_example
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION datasets_refuse_rows();
CREATE TRIGGER ready_datasets_lose_no_rows AFTER DELETE ON datasets_example
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION datasets_refuse_rows();
CREATE FUNCTION datasets_keep_state() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER dataset_states BEFORE UPDATE ON datasets_dataset
    FOR EACH ROW EXECUTE FUNCTION datasets_keep_state();
"""
BACKWARD = """
DROP TRIGGER dataset_states ON datasets_dataset;
DROP TRIGGER ready_datasets_are_immutable ON datasets_example;
DROP TRIGGER ready_datasets_take_no_rows ON datasets_example;
DROP TRIGGER ready_datasets_lose_no_rows ON datasets_example;
DROP FUNCTION datasets_refuse_rows();
DROP FUNCTION datasets_keep_state();
DROP FUNCTION datasets_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("datasets", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
