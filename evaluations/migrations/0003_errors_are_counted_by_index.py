"""Progress counts the errors of each candidate every two seconds: not by reading a million outcomes."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("evaluations", "0002_legal_state_changes")]
    operations = [
        migrations.AddIndex(
            model_name="generation",
            index=models.Index(condition=models.Q(("status", "error")), fields=["candidate"], name="generation_errors"),
        ),
    ]
