from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Robot",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[("contains", "contains"), ("starts", "starts with"), ("is", "is exactly")],
                        default="contains",
                        max_length=8,
                        verbose_name="the user agent",
                    ),
                ),
                (
                    "pattern",
                    models.CharField(
                        help_text="Upper and lower case mean the same. The first 512 characters of a user agent count.",
                        max_length=512,
                        verbose_name="text",
                    ),
                ),
                ("note", models.CharField(blank=True, default="", max_length=200, verbose_name="note")),
                ("enabled", models.BooleanField(default=True, verbose_name="enabled")),
                ("created", models.DateTimeField(auto_now_add=True, verbose_name="created")),
            ],
            options={
                "verbose_name": "robot",
                "verbose_name_plural": "robots",
                "ordering": ["pattern", "kind"],
                "constraints": [models.UniqueConstraint(fields=("kind", "pattern"), name="pluginhost_bots_robot_once")],
            },
        ),
    ]
