"""The audit log only grows: the database itself refuses to change or delete a line (SECURITY S30)."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION lumigator_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON lumigator_auditevent
    FOR EACH ROW EXECUTE FUNCTION lumigator_refuse_change();
"""
BACKWARD = """
DROP TRIGGER audit_is_append_only ON lumigator_auditevent;
DROP FUNCTION lumigator_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("lumigator", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
