from django.apps import AppConfig


class LumigatorConfig(AppConfig):
    name = "lumigator"
    label = "lumigator"
    verbose_name = "People and access"
