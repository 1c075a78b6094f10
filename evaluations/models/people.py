"""What people say about outputs."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import models

from datasets_app.models import Example
from evaluations.models.experiments import Candidate, Experiment


class Preference(models.Model):
    """One person's choice between two outputs whose makers were hidden."""

    class Choice(models.TextChoices):
        LEFT = "left", "Left"
        TIE = "tie", "No difference"
        RIGHT = "right", "Right"

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="preferences")
    rater = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    example = models.ForeignKey(Example, on_delete=models.CASCADE, related_name="+")
    left = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="+")
    right = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="+")
    choice = models.CharField(max_length=5, choices=Choice.choices)
    seconds = models.FloatField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rater", "example", "left", "right"], name="one_vote_per_pair")]

    def __str__(self) -> str:
        return f"{self.rater} on example {self.example_id}: {self.choice}"
