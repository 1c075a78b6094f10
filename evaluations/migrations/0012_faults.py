from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("evaluations", "0011_decisions"),
    ]

    operations = []
