from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "models_registry"
    label = "registry"
    verbose_name = "Models registry"
