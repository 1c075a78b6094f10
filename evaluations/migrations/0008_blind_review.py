from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("evaluations", "0007_ground_truth"),
    ]

    operations = []
