"""The pages of datasets."""

from django.urls import path

from datasets_app import views

urlpatterns = [
    path("", views.datasets, name="datasets"),
    path("upload/", views.upload, name="dataset-upload"),
    path("upload/check/", views.check, name="dataset-check"),
    path("sample/", views.sample, name="dataset-sample"),
    path("<int:pk>/", views.dataset, name="dataset"),
    path("<int:pk>/delete/", views.delete, name="dataset-delete"),
    path("<int:pk>/examples/", views.examples, name="dataset-examples"),
    path("<int:pk>/examples/<int:index>/", views.example, name="dataset-example"),
]
