"""One settings file, driven by the environment; a fresh clone runs with no variable set.

*Laptop mode* is on while neither DATABASE_URL nor POSTGRES_HOST names a database: `lumigator.embedded` then
starts PostgreSQL and Valkey, and secrets are generated into LUMIGATOR_HOME. Anywhere else the secrets must come
from the environment, and the process refuses to start without them. README.md has the table of variables.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from lumigator import embedded, environment

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
environment.load()

HOME = Path(env.str("LUMIGATOR_HOME", default=str(BASE_DIR / "var")))
LAPTOP = not embedded.is_external().postgres
DEBUG = False  # never on: a debug page shows settings, source and the documents of whoever met the fault


def secret(name: str, file: str) -> str:
    """The secret called `name`, from the environment, from the file that `name`_FILE names, or (laptop mode only)
    from a file in LUMIGATOR_HOME that is made on first use. Raises ImproperlyConfigured, naming the variable."""
    if value := env.str(name, ""):
        return value
    if path := env.str(f"{name}_FILE", ""):
        return Path(path).read_text().strip()
    if not LAPTOP:
        raise ImproperlyConfigured(
            f"{name} is not set. Outside the laptop mode every secret comes from the environment: "
            f"set {name} (or {name}_FILE) to the output of `lumigator new-key`."
        )
    place = HOME / file
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as handle:
            handle.write(new_key())
    except FileExistsError:
        pass
    return place.read_text().strip()


def new_key() -> str:
    """A fresh random key of 256 bits, in the URL-safe base64 that Fernet reads too."""
    import base64

    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


SECRET_KEY = secret("LUMIGATOR_SECRET_KEY", "secret_key")
ENCRYPTION_KEYS = [key.strip() for key in secret("LUMIGATOR_ENCRYPTION_KEYS", "encryption_keys").split(",")]

_local = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = env.list("LUMIGATOR_ALLOWED_HOSTS", default=_local if LAPTOP else [])
CSRF_TRUSTED_ORIGINS = env.list("LUMIGATOR_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "lumigator",
    "datasets_app",
    "models_registry",
    "evaluations",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
]

MIDDLEWARE = [
    "lumigator.middleware.RequestId",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "lumigator.middleware.ActingTeam",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "lumigator.unavailable.SayWhatIsAway",
]

ROOT_URLCONF = "lumigator.urls"
WSGI_APPLICATION = "lumigator.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "lumigator.access.team_context",
            ]
        },
    }
]

# Postgres is the truth. Time-outs keep a slow or black-holed database from hanging a page or a worker.
if url := env.str("DATABASE_URL", ""):
    _database = environ.Env.db_url_config(url)
else:
    _database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": env.str("POSTGRES_HOST", "127.0.0.1"),
        "PORT": env.str("POSTGRES_PORT", "5432"),
        "USER": env.str("POSTGRES_USER", "lumigator"),
        "PASSWORD": env.str("POSTGRES_PASSWORD", ""),
        "NAME": env.str("POSTGRES_DB", "lumigator"),
    }
_statement_timeout = env.int("LUMIGATOR_STATEMENT_TIMEOUT_MS", default=0)
_database |= {
    "CONN_MAX_AGE": 60,
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": {
        "connect_timeout": 5,
        "tcp_user_timeout": 30_000,
        "options": f"-c statement_timeout={_statement_timeout} -c idle_in_transaction_session_timeout=15000",
    },
}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", "redis://127.0.0.1:6379/0")


def files_from(variables: Mapping[str, str]) -> dict[str, object]:
    """Where the files of datasets are kept: the bucket that `variables` name, else a folder in LUMIGATOR_HOME."""
    if not (bucket := variables.get("S3_BUCKET")):
        location = HOME / "storage"
        return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": location}}
    options = {
        "bucket_name": bucket,
        "endpoint_url": variables.get("AWS_ENDPOINT_URL") or None,
        "access_key": variables.get("AWS_ACCESS_KEY_ID") or None,
        "secret_key": variables.get("AWS_SECRET_ACCESS_KEY") or None,
        "region_name": variables.get("AWS_DEFAULT_REGION") or "us-east-1",
    }
    return {"BACKEND": "lumigator.bucket.Bucket", "OPTIONS": options}


_static = "django.contrib.staticfiles.storage.StaticFilesStorage"
if not LAPTOP:
    _static = "whitenoise.storage.CompressedManifestStaticFilesStorage"
STORAGES = {"default": files_from(os.environ), "staticfiles": {"BACKEND": _static}}
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = LAPTOP

LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign-in"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_NAME = "lumigator_session" if LAPTOP else "__Host-session"
SESSION_COOKIE_SAMESITE = "Lax"

# Laptop mode speaks plain HTTP on loopback; everywhere else cookies and pages are HTTPS only.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = not LAPTOP and env.bool(
    "LUMIGATOR_HTTPS", default=True
)
SECURE_HSTS_SECONDS = 31_536_000 if SECURE_SSL_REDIRECT else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE_SSL_REDIRECT
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("LUMIGATOR_BEHIND_PROXY", False) else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}
UPLOAD_LIMIT_BYTES = env.int("LUMIGATOR_UPLOAD_LIMIT_BYTES", default=1 << 30)
TEAM_QUOTA_BYTES = env.int("LUMIGATOR_TEAM_QUOTA_BYTES", default=50 << 30)  # of files; 0: no limit
IMPORT_AT_ONCE_BYTES = 5 << 20  # larger files are imported by workers, not in the request
FILE_UPLOAD_HANDLERS = [
    "datasets_app.storing.NotTooLarge",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 << 20
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1000

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "lumigator.access.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["lumigator.access.RolePermission"],
    "DEFAULT_PARSER_CLASSES": [
        "lumigator.parsing.StrictJSON",
        "rest_framework.parsers.MultiPartParser",
        "rest_framework.parsers.FormParser",
    ],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_PAGINATION_CLASS": "lumigator.api.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "lumigator.api.problem",
    "PAGE_SIZE": 50,
    "URL_FORMAT_OVERRIDE": None,  # `?format=` chooses the file of a download, not how DRF answers
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Lumigator",
    "DESCRIPTION": "Bring documents, pick candidate models, read a comparison you can defend.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {
        "DatasetPrivacy": "datasets_app.models.Dataset.Privacy",
        "DatasetState": "datasets_app.models.Dataset.State",
        "ModelPrivacy": "models_registry.models.ModelEntry.Privacy",
        "ModelArchitecture": "models_registry.models.ModelEntry.Architecture",
        "ModelState": "models_registry.models.ModelEntry.State",
        "CheckState": "models_registry.models.ModelCheck.State",
    },
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# How many of the GPUs model workers use (0: all), and the share of one for each process. The older names are Ray's.
WORKER_GPUS = env.float("LUMIGATOR_WORKER_GPUS", default=env.float("RAY_WORKER_GPUS", default=0.0))
WORKER_GPUS_FRACTION = env.float(
    "LUMIGATOR_WORKER_GPUS_FRACTION", default=env.float("RAY_WORKER_GPUS_FRACTION", default=1.0)
)
MODEL_ROOTS = {
    name: Path(path)
    for name, _, path in (entry.partition("=") for entry in env.list("LUMIGATOR_MODEL_ROOTS", default=[]))
} | {"home": HOME / "models"}
EGRESS_ALLOW = env.list("LUMIGATOR_EGRESS_ALLOW", default=[])

# How the engine keeps its promises (RELIABILITY §2); tests shorten them.
LEASE_SECONDS = env.float("LUMIGATOR_LEASE_SECONDS", default=60.0)
RENEW_SECONDS = LEASE_SECONDS / 4
COMPLETION_DAYS = env.int("LUMIGATOR_COMPLETION_DAYS", default=30)  # how long online texts and answers are kept
HANG_SECONDS = env.float("LUMIGATOR_HANG_SECONDS", default=600.0)  # without a sign of life from a model host
SWEEP_SECONDS = env.float("LUMIGATOR_SWEEP_SECONDS", default=5.0)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", "INFO").upper()},
    "loggers": {"httpx": {"level": "WARNING"}, "dramatiq": {"level": "WARNING"}},
}
