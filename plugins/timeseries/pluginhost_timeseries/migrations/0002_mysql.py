"""For MySQL and MariaDB: names and ids are compared exactly."""

from __future__ import annotations

from django.db import migrations

from pluginhost.mysql import compare_exactly


def adapt(apps, schema_editor):
    app = "pluginhost_timeseries"
    compare_exactly(schema_editor, apps.get_model(app, "EventCount"), "name", "subject_type", "subject_id")
    compare_exactly(schema_editor, apps.get_model(app, "LedgerEntry"), "alias", "message_id")


class Migration(migrations.Migration):
    dependencies = [("pluginhost_timeseries", "0001_initial")]

    operations = [migrations.RunPython(adapt, migrations.RunPython.noop, atomic=False)]
