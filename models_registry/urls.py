"""The pages of the registry. A slug may hold slashes, so its address comes last; `adding.RESERVED` names the others."""

from django.urls import path

from models_registry import views

urlpatterns = [
    path("", views.models, name="models"),
    path("add/", views.add, name="model-add"),
    path("connections/", views.connections, name="connections"),
    path("connections/<int:pk>/", views.connection, name="connection"),
    path("connections/<int:pk>/models/", views.offered, name="offered"),
    path("<path:slug>/check/", views.check, name="model-check"),
    path("<path:slug>/", views.model, name="model"),
]
