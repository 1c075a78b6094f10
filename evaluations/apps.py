from django.apps import AppConfig


class EvaluationsConfig(AppConfig):
    name = "evaluations"
    label = "evaluations"
    verbose_name = "Evaluations"

    def ready(self) -> None:
        # Actors must be known to the broker before the first message is sent, in the web process too.
        from evaluations import actors  # noqa: F401
