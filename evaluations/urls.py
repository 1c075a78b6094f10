"""The pages under /experiments/."""

from django.urls import path

from evaluations import views

urlpatterns = [
    path("", views.listing, name="experiments"),
    path("new/", views.new, name="experiment-new"),
    path("<int:pk>/", views.detail, name="experiment"),
    path("<int:pk>/progress/", views.progress, name="experiment-progress"),
    path("<int:pk>/comparison/", views.comparison, name="comparison"),
    path("<int:pk>/examples/", views.examples, name="examples"),
    path("<int:pk>/examples/<int:index>/", views.example, name="example"),
    path("<int:pk>/start/", views.start, name="experiment-start"),
    path("<int:pk>/pause/", views.pause, name="experiment-pause"),
    path("<int:pk>/resume/", views.resume, name="experiment-resume"),
    path("<int:pk>/cancel/", views.cancel, name="experiment-cancel"),
    path("<int:pk>/rescore/", views.rescore, name="experiment-rescore"),
]
