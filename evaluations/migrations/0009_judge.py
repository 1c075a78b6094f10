from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("evaluations", "0008_blind_review"),
    ]

    operations = []
