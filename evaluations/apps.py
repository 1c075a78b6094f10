from django.apps import AppConfig
from django.core.checks import CheckMessage, Warning, register


class EvaluationsConfig(AppConfig):
    name = "evaluations"
    label = "evaluations"
    verbose_name = "Evaluations"

    def ready(self) -> None:
        register(refused_metric_folders)


def refused_metric_folders(**asked: object) -> list[CheckMessage]:
    """A folder that LUMIGATOR_EVALUATE_MODULES names and that is no metric is said aloud, and stops nothing."""
    from evaluations.metrics import _evaluate_modules, available

    available()  # registers them
    return [Warning(sentence, id="lumigator.W001") for sentence in _evaluate_modules.problems]
