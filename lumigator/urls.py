"""Every address of Lumigator. Each app owns its pages (`urls`) and its endpoints (`api.router`)."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.routers import DefaultRouter

from datasets_app.api import router as datasets
from datasets_app.browsing_api import router as browsing
from datasets_app.editing_api import router as editing
from evaluations import playground_views
from evaluations.api import router as evaluations
from evaluations.completion_api import openai_urls
from evaluations.completion_api import router as completions
from evaluations.ground_truth_api import router as ground_truth
from evaluations.metric_api import router as metrics
from lumigator import views
from lumigator.schema import Schema
from models_registry.api import router as registry

router = DefaultRouter()
router.include_format_suffixes = False  # ?format= and Accept choose; …/1.json would be a second address of a thing
for app_router in (datasets, browsing, editing, registry, evaluations, metrics, completions, ground_truth):
    router.registry.extend(app_router.registry)

urlpatterns = [
    path("", views.home, name="home"),
    path("sign-in/", views.SignIn.as_view(), name="sign-in"),
    path("sign-in/<str:secret>/", views.sign_in_by_link, name="sign-in-by-link"),
    path("sign-out/", views.SignOut.as_view(), name="sign-out"),
    path("team/", views.choose_team, name="choose-team"),
    path("guide/", views.guide, name="guide"),
    path("guide/selfcheck/", views.selfcheck, name="selfcheck"),
    path("components/", views.components, name="components"),
    path("datasets/", include("datasets_app.urls")),
    path("models/playground/", playground_views.playground, name="playground"),
    path("models/playground/<uuid:batch>/", playground_views.answers, name="playground-answers"),
    path("models/playground/<uuid:batch>/keep/", playground_views.keep, name="playground-keep"),
    path("models/playground/<uuid:batch>/<int:pk>/", playground_views.answer, name="playground-answer"),
    path("models/", include("models_registry.urls")),
    path("experiments/", include("evaluations.urls")),
    path("ground-truth/", include("evaluations.ground_truth_urls")),
    path("healthz", views.alive, name="alive"),
    path("readyz", views.ready, name="ready"),
    path("api/v1/health/", views.health, name="api-health"),
    path("api/v1/schema/", Schema.as_view(), name="schema"),
    path("api/v1/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api-docs"),
    path("api/v1/openai/", include(openai_urls)),
    path("api/v1/", include(router.urls)),
    path("admin/", admin.site.urls),
]

handler400 = "lumigator.views.bad_request"
handler403 = "lumigator.views.forbidden"
handler404 = "lumigator.views.not_found"
handler500 = "lumigator.views.server_error"
