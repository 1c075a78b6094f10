"""The pages under /ground-truth/."""

from django.urls import path

from evaluations import ground_truth_views as views

urlpatterns = [
    path("", views.listing, name="ground-truths"),
    path("new/", views.new, name="ground-truth-new"),
    path("<int:pk>/", views.detail, name="ground-truth"),
    path("<int:pk>/progress/", views.progress, name="ground-truth-progress"),
    path("<int:pk>/start/", views.start, name="ground-truth-start"),
    path("<int:pk>/pause/", views.pause, name="ground-truth-pause"),
    path("<int:pk>/resume/", views.resume, name="ground-truth-resume"),
    path("<int:pk>/cancel/", views.cancel, name="ground-truth-cancel"),
    path("<int:pk>/delete/", views.delete, name="ground-truth-delete"),
    path("<int:pk>/assign/", views.assign, name="ground-truth-assign"),
    path("<int:pk>/accept-all/", views.accept_all, name="ground-truth-accept-all"),
    path("<int:pk>/publish/", views.publish, name="ground-truth-publish"),
    path("<int:pk>/review/", views.review, name="ground-truth-review"),
    path("<int:pk>/items/", views.items, name="ground-truth-items"),
    path("<int:pk>/items/<int:index>/", views.item, name="ground-truth-item"),
]
