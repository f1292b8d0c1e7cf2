"""For MySQL and MariaDB: ids are compared exactly, so that nobody gets the entries of another."""

from __future__ import annotations

from django.db import migrations

from pluginhost.mysql import compare_exactly


def adapt(apps, schema_editor):
    app = "pluginhost_journal"
    compare_exactly(schema_editor, apps.get_model(app, "Entry"), "user_id", "anonymous_id", "previous_id")
    compare_exactly(schema_editor, apps.get_model(app, "Browser"), "user_id", "anonymous_id")


class Migration(migrations.Migration):
    dependencies = [("pluginhost_journal", "0001_initial")]

    operations = [migrations.RunPython(adapt, migrations.RunPython.noop, atomic=False)]
