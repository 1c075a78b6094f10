from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0002_lifecycle_checks_and_allowances"),
    ]

    operations = []
