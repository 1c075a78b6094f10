from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("lumigator", "0002_audit_is_append_only"),
    ]

    operations = []
