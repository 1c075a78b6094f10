"""The pages of datasets."""

from django.urls import path

from datasets_app import browsing_views, editing_views, views

urlpatterns = [
    path("", views.datasets, name="datasets"),
    path("upload/", views.upload, name="dataset-upload"),
    path("upload/check/", views.check, name="dataset-check"),
    path("upload/check/problems.csv", views.check_problems, name="dataset-check-problems"),
    path("sample/", views.sample, name="dataset-sample"),
    path("<int:pk>/", views.dataset, name="dataset"),
    path("<int:pk>/progress/", views.progress, name="dataset-progress"),
    path("<int:pk>/problems.csv", views.problems, name="dataset-problems"),
    path("<int:pk>/delete/", views.delete, name="dataset-delete"),
    path("<int:pk>/examples/", browsing_views.examples, name="dataset-examples"),
    path("<int:pk>/examples/<int:index>/", browsing_views.example, name="dataset-example"),
    path("<int:pk>/examples/<int:index>/edit/", editing_views.fix, name="dataset-fix"),
    path("<int:pk>/edit/", editing_views.edit, name="dataset-edit"),
    path("<int:pk>/split/", editing_views.split, name="dataset-split"),
]
