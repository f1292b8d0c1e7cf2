"""The settings of the demo shop. All of its state lies in one directory, made anew by each ``make demo``."""

from __future__ import annotations

from csp.constants import NONCE, NONE, SELF

from config.state import DATABASE, mongo_uri, stand_in_url
from standin import StandIn

STAND_IN = stand_in_url()

SECRET_KEY = "of a demo that serves this machine alone"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "shop:products"
LOGOUT_REDIRECT_URL = "shop:products"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "pluginhost",
    "pluginhost.builtin.bots",
    "pluginhost.builtin.journal",
    "pluginhost_timeseries",
    "shop",
]

MIDDLEWARE = [
    "pluginhost.middleware.TrackerMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "pluginhost.builtin.consent.context_processors.consent",
                "shop.basket.basket",
                "shop.privacy.stand_in",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATABASE,
        # A view and the worker write at the same time: each waits for the other, and no reader waits for them.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"},
    }
}

# Nothing inline but what carries the page's nonce, and nothing from elsewhere but from the two providers.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, STAND_IN],
        "connect-src": [SELF, STAND_IN],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

PLUGINHOST = {
    "PLUGINS": {
        "bots": {},
        "consent": {"OPT_OUT": "shop.privacy.has_opted_out"},
        "kissmetrics": {
            "API_KEY": StandIn.KEY,
            "TRACKING_URL": f"{STAND_IN}/kissmetrics",
            "LOADER_URL": f"{STAND_IN}/kissmetrics/i.js",
            "SCRIPT_URL": f"{STAND_IN}/kissmetrics",
        },
        "piwik": {
            "URL": f"{STAND_IN}/matomo/",
            "SITE_ID": 1,
            "TOKEN_AUTH": StandIn.TOKEN,
            "GOALS": {"signed up": 1, "order paid": 2},
            "USER_ID": True,
        },
        "mongo": {"URI": mongo_uri(), "DATABASE": "shop"},
        "timeseries": {"PURPOSE": "necessary"},  # it counts products, not people
        "journal": {},
    },
    "TRANSPORT": "outbox",
    "STRICT": True,
    "ANONYMOUS_COOKIE": "shop_visitor",
    "PAGE_VIEWS": "server",
    "EXCLUDE_PATHS": ["/admin/"],
}

# The token travels unencrypted, but not further than this machine.
SILENCED_SYSTEM_CHECKS = ["pluginhost_piwik.W002"]

# With DEBUG off, Django would write nothing of an error to the terminal.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"terminal": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["terminal"], "level": "INFO"},
}
