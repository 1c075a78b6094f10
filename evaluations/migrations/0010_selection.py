from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("evaluations", "0009_judge"),
    ]

    operations = []
