from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("datasets", "0004_browse_and_edit"),
    ]

    operations = []
