from __future__ import annotations

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="EventCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField(verbose_name="day")),
                ("name", models.CharField(max_length=200, verbose_name="event")),
                ("subject_type", models.CharField(blank=True, default="", max_length=255, verbose_name="subject type")),
                ("subject_id", models.CharField(blank=True, default="", max_length=255, verbose_name="subject key")),
                ("count", models.BigIntegerField(default=0, verbose_name="count")),
                (
                    "total",
                    models.DecimalField(
                        decimal_places=6,
                        default=0,
                        help_text="The sum of the events' values.",
                        max_digits=30,
                        verbose_name="total",
                    ),
                ),
            ],
            options={
                "verbose_name": "event count",
                "verbose_name_plural": "event counts",
                "ordering": ["-day", "name", "subject_type", "subject_id"],
                "get_latest_by": "day",
                "indexes": [
                    models.Index(fields=["name", "day"], name="pluginhost_ts_name_day"),
                    models.Index(fields=["subject_type", "subject_id"], name="pluginhost_ts_subject"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("day", "name", "subject_type", "subject_id"),
                        name="pluginhost_timeseries_eventcount_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="LedgerEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("alias", models.CharField(max_length=63, verbose_name="alias")),
                ("message_id", models.CharField(max_length=36, verbose_name="message id")),
                (
                    "created",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), verbose_name="created"),
                ),
            ],
            options={
                "verbose_name": "ledger entry",
                "verbose_name_plural": "ledger entries",
                "indexes": [models.Index(fields=["created"], name="pluginhost_ts_created")],
                "constraints": [
                    models.UniqueConstraint(fields=("alias", "message_id"), name="pluginhost_timeseries_ledger_once")
                ],
            },
        ),
    ]
