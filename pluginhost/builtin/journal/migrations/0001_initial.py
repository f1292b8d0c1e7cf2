from __future__ import annotations

import django.core.serializers.json
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Browser",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("anonymous_id", models.CharField(max_length=255, verbose_name="anonymous id")),
                (
                    "user_id",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Whose they are; empty: nobody gets them.",
                        max_length=255,
                        verbose_name="user id",
                    ),
                ),
                ("first", models.DateTimeField(help_text="The first event that has a user.", verbose_name="first")),
                (
                    "until",
                    models.DateTimeField(
                        help_text="The last event of that user before any of another; else the last of any.",
                        verbose_name="until",
                    ),
                ),
                (
                    "other",
                    models.DateTimeField(
                        blank=True, help_text="Another user's first event.", null=True, verbose_name="other"
                    ),
                ),
                (
                    "behind",
                    models.BooleanField(
                        default=False, help_text="Entries are still to be joined or parted.", verbose_name="behind"
                    ),
                ),
            ],
            options={
                "verbose_name": "browser",
                "verbose_name_plural": "browsers",
                "indexes": [
                    models.Index(fields=["until"], name="pluginhost_journal_until"),
                    models.Index(condition=models.Q(("behind", True)), fields=["id"], name="pluginhost_journal_behind"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("anonymous_id",), name="pluginhost_journal_browser_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="Entry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("message_id", models.UUIDField(unique=True, verbose_name="message id")),
                (
                    "type",
                    models.CharField(
                        choices=[("track", "track"), ("page", "page"), ("identify", "identify"), ("alias", "alias")],
                        max_length=8,
                        verbose_name="type",
                    ),
                ),
                ("name", models.CharField(max_length=200, verbose_name="event")),
                ("timestamp", models.DateTimeField(help_text="When it happened.", verbose_name="time")),
                ("user_id", models.CharField(blank=True, default="", max_length=255, verbose_name="user id")),
                (
                    "joined",
                    models.BooleanField(
                        default=False,
                        help_text="The event did not say who it was: the user logged in later.",
                        verbose_name="joined",
                    ),
                ),
                ("anonymous_id", models.CharField(blank=True, default="", max_length=255, verbose_name="anonymous id")),
                ("previous_id", models.CharField(blank=True, max_length=255, null=True, verbose_name="previous id")),
                (
                    "properties",
                    models.JSONField(
                        blank=True,
                        default=dict,
                        encoder=django.core.serializers.json.DjangoJSONEncoder,
                        verbose_name="properties",
                    ),
                ),
                ("value", models.FloatField(blank=True, null=True, verbose_name="value")),
                ("subject_model", models.TextField(blank=True, default="", verbose_name="subject type")),
                ("subject_pk", models.TextField(blank=True, default="", verbose_name="subject key")),
                ("url", models.TextField(blank=True, default="", verbose_name="URL")),
                ("path", models.TextField(blank=True, default="", verbose_name="path")),
                ("referrer", models.TextField(blank=True, default="", verbose_name="referrer")),
                ("route", models.TextField(blank=True, default="", verbose_name="route")),
                ("method", models.TextField(blank=True, default="", verbose_name="method")),
                ("ip", models.TextField(blank=True, default="", verbose_name="IP address")),
                ("user_agent", models.TextField(blank=True, default="", verbose_name="user agent")),
                ("language", models.TextField(blank=True, default="", verbose_name="language")),
                (
                    "created",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="When it was written here.",
                        verbose_name="created",
                    ),
                ),
            ],
            options={
                "verbose_name": "entry",
                "verbose_name_plural": "entries",
                "ordering": ["-timestamp", "-id"],
                "get_latest_by": "timestamp",
                "indexes": [
                    models.Index(fields=["timestamp", "id"], name="pluginhost_journal_time"),
                    models.Index(fields=["type", "timestamp"], name="pluginhost_journal_type"),
                    models.Index(fields=["name", "timestamp"], name="pluginhost_journal_name"),
                    models.Index(fields=["user_id", "timestamp"], name="pluginhost_journal_user"),
                    models.Index(fields=["anonymous_id", "user_id", "timestamp"], name="pluginhost_journal_visitor"),
                    models.Index(
                        condition=models.Q(("previous_id__isnull", False)),
                        fields=["previous_id", "user_id", "timestamp"],
                        name="pluginhost_journal_previous",
                    ),
                ],
            },
        ),
    ]
